--- lint.dockerfile_rules: what lint.dockerfile looks for: id -> { level, check, hadolint, says }.
---
--- check: the rule's name among Docker's own build checks, hadolint: its numbers there. A comment may call a rule by any of
--- its names. says: one line for the documentation (docs/dockerfile.md, which a test holds against this table).
local rules = {}

local function rule(id, level, check, hadolint, says)
  rules[id] = { level = level, check = check, hadolint = hadolint or {}, says = says }
end

rule("parse", "error", nil, { "DL1000", "DL3021", "DL3043", "DL3061" }, "the file cannot be read as a Dockerfile")
-- base images and stages
rule("untagged-base", "warning", nil, { "DL3006" }, "a base image without a tag or digest")
rule("latest-base", "warning", nil, { "DL3007" }, "a base image with the tag latest")
rule("stage-name", "error", "DuplicateStageName", { "DL3024" }, "two stages have one name")
rule("stage-casing", "warning", "StageNameCasing", nil, "a stage's name has capital letters")
rule("stage-reserved", "error", "ReservedStageName", nil, "a stage is called scratch or context")
rule("unknown-stage", "warning", nil, { "DL3022" }, "COPY --from names no stage above")
rule("copy-from-itself", "error", nil, { "DL3023" }, "COPY --from names its own stage")
rule("unreachable-stage", "warning", nil, nil, "nothing needs the stage: it is built only as a target")
rule("from-as-casing", "warning", "FromAsCasing", nil, "FROM and AS are not both in capitals, or both not")
rule("platform-constant", "warning", "FromPlatformFlagConstDisallowed", { "DL3029" }, "FROM --platform with a constant")
rule("platform-redundant", "warning", "RedundantTargetPlatform", nil, "FROM --platform=$TARGETPLATFORM, which is the default")
-- variables
rule("undefined-arg-in-from", "warning", "UndefinedArgInFrom", nil, "FROM uses a variable that no ARG before it declares")
rule("no-default-in-from", "warning", "InvalidDefaultArgInFrom", nil, "a part of FROM's image is an ARG without a default")
rule("undefined-variable", "warning", "UndefinedVar", nil, "a variable is used that neither ARG nor ENV sets in the stage")
rule("same-env", "warning", nil, { "DL3044" }, "a variable is used in the ENV that sets it, where it is not yet known")
rule("secret-in-image", "error", "SecretsUsedInArgOrEnv", nil, "a secret is written into ENV or ARG")
rule("secret-as-argument", "warning", "SecretsUsedInArgOrEnv", nil, "a secret is passed as ARG, which the history keeps")
-- instructions
rule("keyword-casing", "warning", "ConsistentInstructionCasing", nil, "keywords in capitals and others not")
rule("maintainer", "warning", "MaintainerDeprecated", { "DL4000" }, "MAINTAINER is deprecated")
rule("legacy-key-value", "warning", "LegacyKeyValueFormat", nil, "ENV name value, LABEL name value without =")
rule("empty-continuation", "warning", "NoEmptyContinuation", nil, "an empty line within a continued one")
rule("shell-form", "warning", "JSONArgsRecommended", { "DL3025" }, "CMD or ENTRYPOINT without the JSON form")
rule("repeated", "warning", "MultipleInstructionsDisallowed", { "DL4003", "DL4004", "DL3012" },
  "CMD, ENTRYPOINT or HEALTHCHECK twice in a stage")
rule("relative-workdir", "warning", "WorkdirRelativePath", { "DL3000" }, "WORKDIR with a relative path and no absolute one before")
rule("relative-destination", "warning", nil, { "DL3045" }, "COPY or ADD to a relative path in a stage without WORKDIR")
rule("expose-port", "error", "ExposeInvalidFormat", { "DL3011" }, "EXPOSE of what is no port")
rule("expose-casing", "warning", "ExposeProtoCasing", nil, "EXPOSE with the protocol in capitals")
rule("add-copy", "warning", nil, { "DL3020" }, "ADD of what COPY copies, too")
rule("add-checksum", "warning", nil, nil, "ADD of a URL without --checksum")
rule("root-user", "warning", nil, { "DL3002" }, "the last USER is root")
-- RUN
rule("apt-get-yes", "error", nil, { "DL3014" }, "apt-get asks, and nobody answers: -y")
rule("apt-get-lists", "warning", nil, { "DL3009" }, "apt-get leaves its package lists in the layer")
rule("apt-get-recommends", "warning", nil, { "DL3015" }, "apt-get install without --no-install-recommends")
rule("apt-get-update", "warning", nil, nil, "apt-get update in a RUN of its own: its lists grow old in the cache")
rule("apt-get-upgrade", "warning", nil, { "DL3005" }, "apt-get dist-upgrade: a newer base image is the way")
rule("apt", "warning", nil, { "DL3027" }, "apt is for people, apt-get for scripts")
rule("apk-cache", "warning", nil, { "DL3019" }, "apk add without --no-cache")
rule("yum-yes", "error", nil, { "DL3030", "DL3038" }, "yum, dnf or microdnf asks, and nobody answers: -y")
rule("yum-clean", "warning", nil, { "DL3032", "DL3040" }, "yum or dnf leaves its cache in the layer")
rule("pip-cache", "warning", nil, { "DL3042" }, "pip leaves its cache in the layer")
rule("sudo", "warning", nil, { "DL3004" }, "sudo in a build")
rule("cd", "warning", nil, { "DL3003" }, "a cd that does not last: WORKDIR")
rule("pointless-command", "warning", nil, { "DL3001" }, "commands that make no sense in a build (ssh, vim, service, ...)")
rule("wget-and-curl", "warning", nil, { "DL4001" }, "both wget and curl")
rule("pipefail", "warning", nil, { "DL4006" }, "a pipe whose first command may fail unseen")
rule("pipe-to-shell", "warning", nil, nil, "what is fetched runs unchecked")

return rules
