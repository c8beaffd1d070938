/*
 * member: typed members of a parsed JSON object, each with its range, and one manner of complaint:
 * "PATH: expected WHAT, found WHAT; what would be right". Used for job.json and spool.json.
 *
 * Getters return 1 with the output set, 0 if the member is absent (output untouched), -1 with the error of the
 * struct filled. A string is shown only where it is a name or a path of this format: any other may be secret.
 */
#ifndef MEMBER_H
#define MEMBER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jx.h"
#include "sperr.h"

#define SP_MEMBER_PATH 256                 /* room for the path of an object of ours */
#define SP_MEMBER_INT_MAX 9007199254740991 /* 2^53 - 1: what every JSON reader keeps exact */
#define SP_MEMBER_TIME_MAX 315360000.0     /* ten years of 365 days, in seconds */

struct sp_member {
	const struct sp_jx *jx;
	json_t *obj;
	const char *path; /* of obj, as sp_jx_fail wants it; "" for the whole text */
	struct sp_err *err;
};

/* Complain about member key of the object (NULL: about the object itself), or about element i of it. Return -1. */
int sp_member_fail(const struct sp_member *m, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int sp_member_fail_item(const struct sp_member *m, const char *key, size_t i, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The same as "expected EXPECTED, found …HINT", with what v is; hint may be "". */
int sp_member_wrong(const struct sp_member *m, const char *key, const json_t *v, const char *expected, const char *hint);
int sp_member_wrong_item(const struct sp_member *m, const char *key, size_t i, const json_t *v, const char *expected,
	const char *hint);
/* The same for member key or, unless i is SP_MEMBER_ALL, its element i; a string is shown: names and paths, never values. */
#define SP_MEMBER_ALL ((size_t)-1)
int sp_member_strange(const struct sp_member *m, const char *key, size_t i, const json_t *v, const char *expected,
	const char *hint);

/* A whole number; a real without fraction is one too, as JSON Schema has it. */
int sp_member_int(const struct sp_member *m, const char *key, int64_t min, int64_t max, int64_t *out);
int sp_member_num(const struct sp_member *m, const char *key, double min, double max, double *out);
/* Seconds, 0 to max; and to SP_MEMBER_TIME_MAX. */
int sp_member_seconds(const struct sp_member *m, const char *key, double max, double *out);
int sp_member_time(const struct sp_member *m, const char *key, double *out);
int sp_member_bool(const struct sp_member *m, const char *key, bool *out);
/* Any string; it may be empty. */
int sp_member_string(const struct sp_member *m, const char *key, const char **out);
/* A string of 1 to max bytes that sp_member_text_ok accepts. */
int sp_member_text(const struct sp_member *m, const char *key, size_t max, const char **out);
/* An object; sub is ready for its members, its path is built in path_out. known: the members it may have, or NULL. */
int sp_member_object(const struct sp_member *m, const char *key, const char *expected, const char *const known[],
	struct sp_member *sub_out, char path_out[SP_MEMBER_PATH]);

/* "spool": the version of a format, 1 if it is given at all. 0, or -1. */
int sp_member_version(const struct sp_member *m, const char *key);

/* Whether n bytes of UTF-8 hold no control character (C0, DEL, C1). */
bool sp_member_text_ok(const char *s, size_t n);
/* s in double quotes, its control characters as '?', cut with "..." where it is long. Returns out. */
#define SP_MEMBER_QUOTED 96
const char *sp_member_quote(char out[SP_MEMBER_QUOTED], const char *s);

#endif
