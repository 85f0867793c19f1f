/* Digests. */
#include "broker/primitive.h"

const struct primitive hash_rows[] = {
    {.sign = {"hash.sha256", "content:string? path:path?", "digest:string",
              "SHA-256 of a text or a file, in hex"},
     .module = MODULE_IO,
     .symbol = "prim_content_hash"},
    {.sign = {.name = NULL}},
};
