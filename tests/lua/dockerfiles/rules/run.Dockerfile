FROM debian:12
# expect: apt-get-yes apt-get-lists apt-get-recommends
RUN apt-get update && apt-get install curl
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends x && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/var/lib/apt,sharing=locked apt-get update && apt-get install -yqq --no-install-recommends x
# expect: apt-get-update
RUN apt-get update
# expect: apt-get-upgrade
RUN apt-get -y dist-upgrade
# expect: apt
RUN apt install -y x
RUN echo "apt install; sudo rm" > /note # apt-get install
# expect: apk-cache
RUN apk add curl
RUN apk add --no-cache curl
# expect: yum-yes yum-clean
RUN yum install x
RUN dnf install -y x && dnf clean all
# expect: pip-cache
RUN pip3 install x
# expect: pip-cache
RUN python3 -m pip install x
RUN --mount=type=cache,target=/app/.cache/pip pip install x
RUN pip install --no-cache-dir x
# expect: sudo
RUN sudo make install
# expect: sudo
ONBUILD RUN sudo make
# expect: cd
RUN cd /srv
# expect: cd
RUN cd /srv && make
RUN cd /srv && make && cd /other && make
# expect: pointless-command
RUN if true; then service x start; fi
RUN curl -fsS https://example.org/a -o a 2>&1
# expect: wget-and-curl
RUN wget https://example.org/a
# expect: pipefail pipe-to-shell
RUN curl https://example.org/i | sh
RUN set -o pipefail; cat a | wc -l
RUN a || b
# expect: apt-get-lists apt-get-recommends
RUN <<EOF
apt-get update
apt-get install -y x
# apt install y
EOF
# expect: sudo
RUN ["sudo", "true"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN cat a | wc -l
ENV PIP_NO_CACHE_DIR=1
RUN pip install x
