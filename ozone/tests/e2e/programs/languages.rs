//! Package managers of languages, with packages of their registries, and a database that is a
//! mapping in memory.

use crate::harness::sides::Sides;

const DATABASE: &str = r#"
import hashlib, lmdb, os, subprocess, sys
SIZE = 32 << 20
def work(path, who, options):
    env = lmdb.open(path, map_size=SIZE, **options)
    for n in range(50):
        with env.begin(write=True) as t:
            t.put(b"%s-%d" % (who.encode(), n), b"x" * 5000)
            count = t.get(b"count") or b"0"
            t.put(b"count", b"%d" % (int(count) + 1))
    env.close()
def look(path, **options):
    env = lmdb.open(path, map_size=SIZE, **options)
    digest = hashlib.sha256()
    with env.begin() as t:
        for key, value in t.cursor():
            digest.update(key + value)
        print(path, t.stat()["entries"], t.get(b"count"), digest.hexdigest())
    env.close()
if len(sys.argv) > 1:
    work(sys.argv[1], sys.argv[2], eval(sys.argv[3]))
    sys.exit()
for n, options in enumerate([{}, {"writemap": True}, {"writemap": True, "map_async": True}]):
    path = "db%d" % n
    env = lmdb.open(path, map_size=SIZE, **options)
    for batch in range(5):
        with env.begin(write=True) as t:
            for i in range(200):
                t.put(b"%05d" % (batch * 200 + i), hashlib.sha256(b"%d" % i).digest() * 20)
    with env.begin(write=True) as t:
        for i in range(0, 1000, 3):
            t.delete(b"%05d" % i)
    env.close()
    # Two processes at once: their locks lie in a file that both map.
    both = [subprocess.Popen([sys.executable, "db.py", path, who, repr(options)]) for who in "ab"]
    assert all(p.wait() == 0 for p in both)
    look(path, **options)
    os.mkdir("copy%d" % n)
    env = lmdb.open(path, map_size=SIZE, **options)
    env.copy("copy%d" % n, compact=True)
    env.close()
    look("copy%d" % n, readonly=True)
"#;

#[test]
fn python_environments_and_a_mapped_database() {
    let mut sides = Sides::start(&["python3"]);
    // The distribution's interpreter: others may lie about where they are.
    sides.same(
        "py=/usr/bin/python3; [ -x $py ] || py=python3; $py -m venv env
         env/bin/pip install -q --no-input --disable-pip-version-check six==1.16.0 lmdb==1.7.3 2>&1
         env/bin/pip check; env/bin/pip freeze; env/bin/python -c 'import six, lmdb; print(lmdb.version())'
         cat $(find env -path '*/lmdb-*/RECORD') | LC_ALL=C sort | grep -v -e INSTALLER -e pyc",
    );
    let script = format!("cat > db.py <<'EOF'\n{DATABASE}\nEOF\nenv/bin/python db.py");
    let said = sides.same(&script);
    assert_eq!(said.lines().filter(|l| l.contains("767 b'100'")).count(), 6, "{said}");
    sides.mount.remount();
    sides.same(
        "for d in db0 db1 db2 copy0; do
           env/bin/python -c \"import lmdb; e = lmdb.open('$d', readonly=True); print(e.stat()['entries'])\"
         done; env/bin/pip uninstall -q -y six; env/bin/pip freeze",
    );
}

#[test]
fn npm_installs() {
    let mut sides = Sides::start(&["npm", "node"]);
    let env = "export npm_config_cache=$PWD/cache npm_config_update_notifier=false \
        npm_config_fund=false npm_config_audit=false npm_config_loglevel=error";
    let sums =
        "(cd node_modules; find . -type f ! -name .package-lock.json -print0 | LC_ALL=C sort -z |
        xargs -0 sha256sum; find . -type l -printf '%p %l\\n' | LC_ALL=C sort)";
    sides.same(&format!(
        "{env}; mkdir project; cd project; echo '{{\"name\":\"p\",\"version\":\"1.0.0\"}}' > package.json
         npm install --silent mkdirp@1.0.4 debug@4.3.4 mime@3.0.0
         node -e 'console.log(require(\"debug/package.json\").version)'; ls -l node_modules/.bin | wc -l
         node_modules/.bin/mime a.txt; npm ls --depth 0 | tail -n +2; cat package-lock.json; {sums}"
    ));
    sides.mount.remount();
    // Again, from the cache in the mount.
    sides.same(&format!(
        "{env}; cd project; node_modules/.bin/mime a.txt; npm ci --silent --prefer-offline; {sums}
         npm uninstall --silent debug; ls node_modules; cd ..; rm -rf project cache; ls -A"
    ));
}
