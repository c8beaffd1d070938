/*
 * member: see member.h.
 *
 * I1  Paths are built only when something is wrong; reading a good file allocates nothing here.
 * I2  Keys are constants of ours or were checked by the caller, so a path always fits and always names a place that the
 *     walk in jx finds.
 */
#include "member.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *join(char out[SP_MEMBER_PATH], const char *path, const char *key)
{
	if (!key)
		(void)snprintf(out, SP_MEMBER_PATH, "%s", path);
	else
		(void)snprintf(out, SP_MEMBER_PATH, "%s%s%s", path, *path ? "." : "", key);
	return out;
}

int sp_member_fail(const struct sp_member *m, const char *key, const char *fmt, ...)
{
	char path[SP_MEMBER_PATH], text[640];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return sp_jx_fail(m->jx, join(path, m->path, key), false, m->err, "%s", text);
}

int sp_member_fail_item(const struct sp_member *m, const char *key, size_t i, const char *fmt, ...)
{
	char item[128], path[SP_MEMBER_PATH], text[640];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	(void)snprintf(item, sizeof item, "%.100s[%zu]", key, i);
	return sp_jx_fail(m->jx, join(path, m->path, item), false, m->err, "%s", text);
}

static const char *found(const json_t *v, char out[64])
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return json_object_size(v) ? "an object" : "an empty object";
	case JSON_ARRAY:
		return json_array_size(v) ? "an array" : "an empty array";
	case JSON_STRING:
		return json_string_length(v) ? "a string" : "an empty string";
	case JSON_INTEGER:
		(void)snprintf(out, 64, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		return out;
	case JSON_REAL:
		(void)snprintf(out, 64, "%.15g", json_real_value(v));
		return out;
	case JSON_TRUE:
		return "true";
	case JSON_FALSE:
		return "false";
	case JSON_NULL:
		break;
	}
	return "null";
}

int sp_member_wrong(const struct sp_member *m, const char *key, const json_t *v, const char *expected, const char *hint)
{
	char what[64];

	return sp_member_fail(m, key, "expected %s, found %s%s", expected, found(v, what), hint);
}

int sp_member_wrong_item(const struct sp_member *m, const char *key, size_t i, const json_t *v, const char *expected,
	const char *hint)
{
	char what[64];

	return sp_member_fail_item(m, key, i, "expected %s, found %s%s", expected, found(v, what), hint);
}

int sp_member_strange(const struct sp_member *m, const char *key, size_t i, const json_t *v, const char *expected,
	const char *hint)
{
	char what[64], shown[SP_MEMBER_QUOTED];
	const char *is = json_is_string(v) ? sp_member_quote(shown, json_string_value(v)) : found(v, what);

	if (i == SP_MEMBER_ALL)
		return sp_member_fail(m, key, "expected %s, found %s%s", expected, is, hint);
	return sp_member_fail_item(m, key, i, "expected %s, found %s%s", expected, is, hint);
}

int sp_member_int(const struct sp_member *m, const char *key, int64_t min, int64_t max, int64_t *out)
{
	json_t *v = json_object_get(m->obj, key);
	char expected[96];
	double d;

	if (!v)
		return 0;
	if (json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max) {
		*out = json_integer_value(v);
		return 1;
	}
	d = json_is_real(v) ? json_real_value(v) : 0.5;
	if (trunc(d) == d && fabs(d) <= (double)SP_MEMBER_INT_MAX && d >= (double)min && d <= (double)max) {
		*out = (int64_t)d;
		return 1;
	}
	(void)snprintf(expected, sizeof expected, "a whole number from %" PRId64 " to %" PRId64, min, max);
	return sp_member_wrong(m, key, v, expected, "");
}

static int number(const struct sp_member *m, const char *key, const char *what, double min, double max, double *out)
{
	json_t *v = json_object_get(m->obj, key);
	char expected[96];

	if (!v)
		return 0;
	/* JSON has no NaN and the parser refuses what overflows, so the range check is all. */
	if (json_is_number(v) && json_number_value(v) >= min && json_number_value(v) <= max) {
		*out = json_number_value(v);
		return 1;
	}
	(void)snprintf(expected, sizeof expected, "a number%s from %.15g to %.15g", what, min, max);
	return sp_member_wrong(m, key, v, expected, "");
}

int sp_member_num(const struct sp_member *m, const char *key, double min, double max, double *out)
{
	return number(m, key, "", min, max, out);
}

int sp_member_seconds(const struct sp_member *m, const char *key, double max, double *out)
{
	return number(m, key, " of seconds", 0, max, out);
}

int sp_member_time(const struct sp_member *m, const char *key, double *out)
{
	return number(m, key, " of seconds", 0, SP_MEMBER_TIME_MAX, out);
}

int sp_member_bool(const struct sp_member *m, const char *key, bool *out)
{
	json_t *v = json_object_get(m->obj, key);

	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return sp_member_wrong(m, key, v, "true or false", "");
	*out = json_is_true(v);
	return 1;
}

int sp_member_string(const struct sp_member *m, const char *key, const char **out)
{
	json_t *v = json_object_get(m->obj, key);

	if (!v)
		return 0;
	if (!json_is_string(v))
		return sp_member_wrong(m, key, v, "a string", "");
	*out = json_string_value(v);
	return 1;
}

int sp_member_text(const struct sp_member *m, const char *key, size_t max, const char **out)
{
	json_t *v = json_object_get(m->obj, key);
	char expected[96];
	size_t n;

	if (!v)
		return 0;
	(void)snprintf(expected, sizeof expected, "a text of 1 to %zu bytes without control characters", max);
	if (!json_is_string(v) || !json_string_length(v))
		return sp_member_wrong(m, key, v, expected, "");
	n = json_string_length(v);
	if (n > max)
		return sp_member_fail(m, key, "expected %s, found %zu bytes", expected, n);
	if (!sp_member_text_ok(json_string_value(v), n))
		return sp_member_fail(m, key, "expected %s, found one that has some", expected);
	*out = json_string_value(v);
	return 1;
}

int sp_member_object(const struct sp_member *m, const char *key, const char *expected, const char *const known[],
	struct sp_member *sub_out, char path_out[SP_MEMBER_PATH])
{
	json_t *v = json_object_get(m->obj, key);

	if (!v)
		return 0;
	if (!json_is_object(v))
		return sp_member_wrong(m, key, v, expected, "");
	*sub_out = (struct sp_member){m->jx, v, join(path_out, m->path, key), m->err};
	if (known && sp_jx_only(m->jx, v, path_out, known, m->err))
		return -1;
	return 1;
}

int sp_member_version(const struct sp_member *m, const char *key)
{
	json_t *v = json_object_get(m->obj, key);

	if (v && !(json_is_number(v) && json_number_value(v) == 1.0))
		return sp_member_wrong(m, key, v, "1, the version of this format", "");
	return 0;
}

bool sp_member_text_ok(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t i;

	for (i = 0; i < n; i++)
		if (p[i] < 0x20 || p[i] == 0x7f || (p[i] == 0xc2 && i + 1 < n && p[i + 1] < 0xa0))
			return false;
	return true;
}

const char *sp_member_quote(char out[SP_MEMBER_QUOTED], const char *s)
{
	size_t n = strlen(s), max = SP_MEMBER_QUOTED - sizeof "\"\"...", i;
	bool cut = n > max;

	if (cut)
		for (n = max; n && ((unsigned char)s[n] & 0xc0) == 0x80; n--)
			; /* not inside a character */
	out[0] = '"';
	for (i = 0; i < n; i++)
		out[i + 1] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
	(void)snprintf(out + n + 1, SP_MEMBER_QUOTED - n - 1, "%s\"", cut ? "..." : "");
	return out;
}
