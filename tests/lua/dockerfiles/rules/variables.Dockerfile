ARG GLOBAL=1
# expect: unreachable-stage
FROM debian:12
# expect: undefined-variable
LABEL a=$GLOBAL
ARG GLOBAL
LABEL a=$GLOBAL b=${NOBODY_KNOWS} c=${PATH}
# expect: undefined-variable
WORKDIR /$TARGETARCH
ENV PROJECT_HOME=/srv
# expect: undefined-variable
USER $PROJECT_HOMR
LABEL q='$PROJECT_HOMR' e=\$PROJECT_HOMR d=${PROJECT_HOMR:-x}
# expect: same-env
ENV A=1 B=$A
ENV A=2 C=$A
# expect: unreachable-stage
FROM scratch
# expect: undefined-variable
COPY x /$C
ENV C=/c
COPY x $C$PATH/
# expect: secret-in-image
ENV DB_PASSWORD=hunter2
# expect: secret-as-argument
ARG NPM_TOKEN
# expect: secret-in-image
ENV AWS_SECRET_ACCESS_KEY=x \
    OTHER=y
ENV TOKEN_FILE=/run/token PASSWORD="" API_KEY=$C PUBLIC_KEY_ID=1 TOKENIZER=fast SECRETARY_NAME=a
# expect: legacy-key-value
ENV OLD form
# expect: legacy-key-value
LABEL old form
# expect: unreachable-stage
FROM debian:12 AS last
FROM scratch
COPY x /
