FROM debian:12
# expect: relative-destination
COPY a b
# expect: relative-workdir
WORKDIR app
WORKDIR deeper
COPY a b
# expect: keyword-casing
copy a /b
# expect: keyword-casing
Run true
# expect: maintainer
MAINTAINER me
# expect: empty-continuation
RUN true \

    && true
# expect: shell-form
CMD a
# expect: repeated
CMD ["a"]
# expect: shell-form
ENTRYPOINT a
HEALTHCHECK CMD a
# expect: repeated
HEALTHCHECK NONE
# expect: expose-port
EXPOSE 70000
# expect: expose-port
EXPOSE 10-9/tcp
# expect: expose-port
EXPOSE 127.0.0.1:80:80
# expect: expose-casing
EXPOSE 80/TCP
EXPOSE 80 81-90/udp $PORT
# expect: add-copy
ADD main.py /app/
# expect: add-checksum
ADD https://example.org/x /
ADD --checksum=sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a https://example.org/x /
ADD a.tar b.tar.gz c.tgz d.tar.bz2 git@github.com:a/b /x/
ADD https://example.org/x.git#main /y
SHELL ["/bin/bash", "-c"]
USER app
# expect: root-user
USER root:root
