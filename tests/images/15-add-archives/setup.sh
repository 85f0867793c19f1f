# archives with what archives have: folders, modes, owners, links; the times are fixed, as the digest of a copy is told
pack() { tar --sort=name --mtime=@0 --numeric-owner "$@"; }
mkdir -p tree/link && ln -s ../etc/a.conf tree/link/a && ln tree/etc/a.conf tree/etc/hard && chmod 700 tree/link && chmod 4755 tree/bin/run
pack --owner=1000 --group=50 -C tree -cf plain.tar .
pack --owner=0 --group=0 -C tree -cf - etc | gzip -n >one.tar.gz
pack --owner=33 --group=33 -C tree -cf - bin | bzip2 >two.tar.bz2
pack --owner=0 --group=0 -C tree -cf - link | xz >three.tar.xz
rm -r tree/link tree/etc/hard && chmod 755 tree/bin/run
