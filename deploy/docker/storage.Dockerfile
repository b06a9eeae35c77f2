# SeaweedFS with a data folder of the user whose files the secrets are; compose alone needs it.

FROM chrislusf/seaweedfs:4.48
ARG UID=10001
ARG GID=10001
USER root
# Not /data: the image declares that a volume, and a builder may throw away what is changed in one.
# The index of the objects lies there, too, unless told otherwise.
RUN mkdir -p /srv/objects \
    && chown "$UID:$GID" /srv/objects \
    && printf '[leveldb2]\nenabled = true\ndir = "/srv/objects/index"\n' >/etc/seaweedfs/filer.toml
USER ${UID}:${GID}
# Not the image's own script, which preallocates gigabytes.
ENTRYPOINT ["/usr/bin/weed"]
