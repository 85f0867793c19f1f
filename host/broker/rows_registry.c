/* Images: built here, pushed to and pulled from registries. The objects of lua/registry are made of
 * these. */
#include "broker/primitive.h"

#define ROW(row_name, row_args, row_returns, row_doc)                                              \
    {                                                                                              \
        .sign = {"registry." #row_name, row_args, row_returns, row_doc}, .module = MODULE_IO,      \
        .symbol = "prim_registry_" #row_name                                                       \
    }

const struct primitive registry_rows[] = {
    ROW(artifact, "ref:string? type:string files:array annotations:map? subject:string?",
        "result:map", "files as an artifact in a registry"),
    ROW(attach, "ref:string type:string blob:string? text:string? annotations:map?", "result:map",
        "a document that refers to an image, beside it in its registry"),
    ROW(base_image, "", "image:map",
        "build the image that holds this program (mlhost/base) into the build cache"),
    ROW(build,
        "context:path dockerfile:path? name:string? tag:string? args:map? labels:map? "
        "target:string? cache:bool? no_cache:bool? cache_from:array? cache_to:string? "
        "secrets:map? memory:any? processes:int? push:string? provenance:map?",
        "image:map", "build an image from a Dockerfile, without a daemon, into the build cache"),
    ROW(catalog, "host:string? limit:int? last:string?", "repositories:array",
        "the repositories that a registry shows"),
    ROW(collect, "dry_run:bool? untagged:bool? grace:int?", "result:map",
        "remove what no image needs any more from this machine's stores of images"),
    ROW(compose, "config:map layers:array annotations:map?", "image:map",
        "an image of a config and of layers in the build cache"),
    ROW(compose_index, "images:array annotations:map?", "image:map",
        "an index of images in the build cache"),
    ROW(content_tag, "context:path dockerfile:path? args:map? salt:string?", "tag:string",
        "a tag that names the content of a build context"),
    ROW(document, "blob:string", "document:map", "a JSON document of the build cache"),
    ROW(delete, "ref:string", "digest:string",
        "delete a manifest from its registry, with every tag of it"),
    ROW(delete_blob, "ref:string", "", "take a blob from a repository"),
    ROW(dockerfile, "path:path", "parsed:map", "a Dockerfile as data, with its problems"),
    ROW(exists, "ref:string", "digest:string", "the digest that a tag names, or nil"),
    ROW(export, "digest:string to:path", "result:map",
        "the files of an image of the build cache as one tar archive"),
    ROW(files, "ref:string to:path", "files:array", "the files of an artifact, in a folder"),
    ROW(inspect, "ref:string", "image:map", "config and layers of an image, without pulling it"),
    ROW(layer, "path:path to:string? push:string?", "layer:map",
        "a folder or a tar archive as a layer in the build cache"),
    ROW(load, "ref:string? digest:string?", "image:map",
        "an image in the build cache, manifest and config as data"),
    ROW(manifest, "ref:string", "reply:map", "an image's manifest or index as data"),
    ROW(platform, "", "platform:map", "os and architecture of this machine, as images name them"),
    ROW(pull, "ref:string all:bool?", "image:map",
        "pull an image into the build cache, every digest checked"),
    ROW(push, "digest:string ref:string from:string? all:bool?", "result:map",
        "push an image; what is there already is skipped"),
    ROW(read_layout, "kind:string path:path tag:string?", "image:map",
        "an image of an OCI layout or a docker archive into the build cache"),
    ROW(reference, "ref:string", "parts:map", "what a reference means under the active profile"),
    ROW(referrers, "ref:string type:string?", "descriptors:array",
        "the artifacts that refer to an image"),
    ROW(sbom, "digest:string? ref:string? name:string?", "result:map",
        "what is in an image, as SPDX 2.3"),
    ROW(squash, "digest:string", "layer:map",
        "one layer of all that an image of the build cache holds"),
    ROW(tags, "repository:string limit:int? last:string?", "tags:array",
        "the tags of a repository"),
    ROW(untag, "ref:string", "", "take a tag from its repository; the manifest stays"),
    ROW(unpack, "ref:string to:path", "image:map", "an image's files in a folder"),
    ROW(verify, "digest:string", "result:map", "reads an image of the build cache again, checked"),
    ROW(write_layout, "digest:string kind:string path:path tag:string?", "image:map",
        "an image of the build cache into an OCI layout or a docker archive"),
    {.sign = {.name = NULL}},
};
