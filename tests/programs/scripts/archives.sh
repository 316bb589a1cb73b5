# Archivers and compressors, with threads where they have them.
set -e
cd "$1"
cp -r /usr/share/perl5 tree 2>/dev/null || cp -rL /usr/share/doc/bash tree
head -c 3000000 /usr/bin/perl >tree/binary
ln -s binary tree/link; ln tree/binary tree/hard; mkfifo tree/fifo
find tree -exec touch -h -d @1000000000 {} +
tar --sort=name --owner=0 --group=0 --numeric-owner -cf all.tar tree
sha256sum all.tar
xz -1 -T2 --block-size=1MiB -k all.tar; xz -t -T2 all.tar.xz; sha256sum all.tar.xz; xz -dc -T2 all.tar.xz | sha256sum
zstd -q -T2 -3 all.tar; zstd -q -t all.tar.zst; zstd -qdc all.tar.zst | sha256sum
gzip -nk6 all.tar; gzip -t all.tar.gz; bzip2 -k all.tar; sha256sum all.tar.gz all.tar.bz2
mkdir out; tar -xJf all.tar.xz -C out; tar -I zstd -tf all.tar.zst | wc -l
rsync -aH --checksum --stats tree/ copy/ | grep -E 'Number of (files|regular)'
echo changed >>copy/binary; rm copy/link
rsync -aHi --delete tree/ copy/
diff -r --no-dereference -x fifo out/tree copy && echo the same
printf 'damaged' | dd of=all.tar.xz bs=1 seek=100000 conv=notrunc status=none
xz -t all.tar.xz || echo "status $?"
