# check=skip=JSONArgsRecommended,maintainer;error=true
# hadolint global ignore=DL3027
FROM debian:12
MAINTAINER me
# hadolint ignore=DL3014, apt-get-recommends,DL3009
RUN apt-get update && apt-get install x
# expect: apt-get-yes apt-get-lists apt-get-recommends
RUN apt-get update && apt-get install x
# hadolint ignore=DL3004
# a comment in between
RUN sudo apt update
# expect: sudo
RUN sudo true
# expect: relative-workdir
WORKDIR x
CMD a
