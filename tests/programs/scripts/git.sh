# A repository's life: commits, branches, a merge with a conflict, clone, gc, fsck.
set -e
cd "$1"
export HOME=$1 GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=c \
       GIT_COMMITTER_EMAIL=c@d GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000' GIT_PAGER=cat
git init -q -b main origin
cd origin
for i in $(seq 12); do
    seq "$i" 2000 >"file$((i % 5))"
    mkdir -p "dir$((i % 3))"; echo "$i" >"dir$((i % 3))/$i"
    git add -A; git commit -q -m "commit $i"
done
git checkout -q -b side HEAD~4
echo side >>file1; git commit -qam side
git checkout -q main
echo main >>file1; git commit -qam main
git merge side || true
git checkout --ours file1 2>&1; git add file1; git commit -qm merged
git tag -a v1 -m tagged
git log --oneline --graph | cat
cd ..
git clone -q "file://$1/origin" clone 2>&1
cd clone
git rev-parse HEAD v1
git gc -q --prune=now
git fsck --full --strict 2>&1
git count-objects -v | grep -E '^(count|in-pack|packs|garbage)'
git diff --stat HEAD~3 | cat
git grep -c 1999 | cat
git bisect start HEAD HEAD~5 2>&1
git bisect run sh -c '! test -e dir2/11' | grep -E 'is the first bad commit'
git bisect reset 2>&1
git archive HEAD | sha256sum
echo untracked >new; git stash -q -u; git stash pop -q; git status --short
