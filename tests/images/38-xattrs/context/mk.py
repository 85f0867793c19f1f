import io, sys, tarfile
cap = bytes.fromhex('0100000200040000000000000000000000000000')
with tarfile.open(sys.argv[1], 'w', format=tarfile.PAX_FORMAT) as tar:
    for name, attributes in (('caps', {'security.capability': cap}), ('user', {'user.note': b'a note', 'user.other': b'\x01\x02'}), ('plain', {})):
        info = tarfile.TarInfo(name)
        info.size, info.mode = 3, 0o755
        info.pax_headers = {'SCHILY.xattr.' + k: v.decode('utf-8', 'surrogateescape') for k, v in attributes.items()}
        tar.addfile(info, io.BytesIO(b'#!\n'))
