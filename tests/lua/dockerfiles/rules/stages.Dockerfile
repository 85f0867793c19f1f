ARG TAG
ARG VERSION=12
ARG BASE
# expect: untagged-base unreachable-stage
FROM debian AS one
# expect: latest-base stage-name
FROM debian:latest AS one
# expect: stage-casing
FROM debian:12 AS Two
# expect: from-as-casing
FROM debian:12 as three
# expect: stage-reserved
FROM debian:12 AS context
# expect: platform-constant
FROM --platform=linux/amd64 debian:12 AS four
# expect: platform-redundant unreachable-stage
FROM --platform=$TARGETPLATFORM debian:12 AS five
# expect: undefined-arg-in-from
FROM debian:$VERSIO AS six
# expect: no-default-in-from
FROM debian:$TAG AS seven
FROM ${BASE} AS eight
FROM --platform=$BUILDPLATFORM debian:${VERSION} AS nine
FROM debian@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a AS ten
FROM one
# expect: unknown-stage
COPY --from=thre /a /b
# expect: unknown-stage
COPY --from=99 /a /b
# expect: copy-from-itself
COPY --from=12 /a /b
COPY --from=busybox:1 /a /b
COPY --from=Two /a /b
COPY --from=three /a /b
COPY --from=context /a /b
COPY --from=5 /a /b
COPY --from=seven /a /b
COPY --from=eight /a /b
RUN --mount=type=bind,from=nine,target=/n --mount=type=bind,from=six,target=/s ls
COPY --from=ten /a /b
