//! git: many small files, renames onto lock files, read-only objects, hard links, mmap of packs.

use crate::harness::sides::Sides;
use crate::harness::{shell, tree};

/// The same commits everywhere, and no settings of the machine's.
const ENV: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
    GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b \
    GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z; ";

fn git(script: &str) -> String {
    format!("{ENV}{script}")
}

#[test]
fn a_repository_lives() {
    let mut sides = Sides::start(&["git", "diff"]);
    for at in [sides.local.path().to_owned(), sides.mount.path().to_owned()] {
        tree::make(&at.join("repo"), 200, 2);
    }
    sides.same(&git("cd repo; git init -q -b main; git add -A; git commit -q -m first
        git branch side; echo change >> d00/e00/f0; git commit -q -a -m second
        git checkout -q side; git mv d00/e01/f11 moved; git commit -q -a -m third
        git rebase -q main; git log --format='%H %s' --stat
        git checkout -q main; git merge -q --no-ff -m merged side; git tag -a -m tag v1
        git worktree add -q -b work ../worktree; cd ../worktree; rm -r d01; git commit -q -a -m fourth
        git status --porcelain; cd ../repo; git worktree list --porcelain | grep -v '^worktree'
        git worktree remove ../worktree; git worktree prune; git merge -q work
        echo stashed > d00/e00/f0; git stash -q; git status --porcelain; git stash pop -q; git diff
        git reset -q --hard; git log --format=%H; git ls-files -s | sha256sum"));
    sides.same(&git("cd repo; git gc -q --prune=now; git fsck --full --strict; git count-objects -v | \
            grep -E 'count|in-pack|packs'
        cd ..; git clone -q repo clone; diff -r --exclude=.git repo clone
        git clone -q --bare --no-hardlinks repo bare.git; cd clone; git fsck --full --strict
        echo pushed > pushed; git add pushed; git commit -q -m pushed; git push -q ../bare.git HEAD:new
        git -C ../bare.git log --format='%H %s' new -1"));
    sides.mount.remount();
    sides.same(&git(
        "git -C clone fsck --full --strict; git -C repo fsck --full --strict
        git -C clone status --porcelain; git -C repo status --porcelain; git -C bare.git show-ref",
    ));
}

#[test]
fn a_repository_is_shared_by_two_mounts() {
    let sides = Sides::start(&["git", "diff"]);
    let other = sides.cluster.mount();
    let (here, there) = (sides.mount.path(), other.path());
    tree::make(&here.join("repo"), 60, 4);
    shell(
        here,
        &git("cd repo; git init -q -b main; git add -A; git commit -q -m first
        git clone -q --bare . ../shared.git"),
    );
    // A clone through the other mount of what this one holds, and hard links of its objects.
    shell(there, &git(&format!("git clone -q {}/shared.git theirs; git -C theirs fsck --full --strict
        diff -r --exclude=.git repo theirs; git clone -q shared.git linked; git -C linked fsck --full",
        here.display())));
    // One pushes, the other pulls, in turn.
    for n in 0..3 {
        shell(
            there,
            &git(&format!(
                "cd theirs; echo {n} > there; git add there
            git commit -q -m there{n}; git push -q ../shared.git HEAD:main"
            )),
        );
        shell(
            here,
            &git(&format!(
                "cd repo; git pull -q --ff-only ../shared.git main
            [ \"$(cat there)\" = {n} ]; echo {n} > here; git add here; git commit -q -m here{n}
            git push -q ../shared.git HEAD:main"
            )),
        );
        shell(
            there,
            &git(&format!(
                "cd theirs; git pull -q --ff-only ../shared.git main; [ \"$(cat here)\" = {n} ]"
            )),
        );
    }
    // Both work in the same repository: the one sees at once what the other did.
    shell(
        here,
        &git("cd repo; git checkout -q -b ours; echo a > a; git add a; git commit -q -m a"),
    );
    shell(
        there,
        &git("cd repo; [ \"$(git branch --show-current)\" = ours ]; git status --porcelain; \
        [ -z \"$(git status --porcelain)\" ]; git gc -q --prune=now; echo b > b; git add b; git commit -q -m b"),
    );
    shell(
        here,
        &git(
            "cd repo; [ -z \"$(git status --porcelain)\" ]; [ \"$(cat b)\" = b ]; git fsck --full --strict",
        ),
    );
    let log = git("git -C repo log --format='%H %s'; git -C shared.git log --format='%H %s' main");
    assert_eq!(shell(here, &log), shell(there, &log));
}
