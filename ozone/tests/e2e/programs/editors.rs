//! Programs that save by writing a new file and renaming it, and the delivery of mail.

use crate::harness::sides::Sides;

#[test]
fn saves_of_vim_sed_and_perl() {
    let mut sides = Sides::start(&["vi", "sed", "perl", "python3"]);
    //
    // vim does not keep backups of files in /tmp unless told to.
    sides.same(
        r#"ed() {
              vi -Nu NONE -i NONE -es -c 'set backupskip= backupdir=. directory=.' -c "set $2" -c "$3" -c wq $1
          }
          umask 022; printf 'one\ntwo\n' > f; chmod 640 f; ln f hard; ln -s f sym
          ed f backupcopy=yes '%s/one/uno/'; stat -c '%a %h' f; cmp f hard
          ed f backupcopy=no '%s/two/due/'; stat -c '%a %h' f hard; grep . f hard; rm hard
          ed sym backupcopy=auto '%s/due/drei/'; readlink sym; cat sym
          ed f 'backup backupcopy=no' '%s/uno/ein/'; grep . f f~; chmod 444 f; ls -A; chmod 644 f
          ed new nobackup 'normal ihello'; cat new; ls -A"#,
    );
    sides.same(
        "chmod 604 f; sed -i s/uno/eins/ f; stat -c '%a %h' f; sed -i.orig -e '1d' f; grep . f f.orig
         perl -pi -e 's/drei/tre/' f; perl -pi.bak -e 's/e/E/' f; grep . f f.bak
         echo whole > t; cp -p t t~; mv t~ t; cp --remove-destination f t; cmp f t; mv -n f t; ls -A
         install -D -m 751 -o nobody t i/j/k; stat -c '%a %U' i i/j i/j/k",
    );
    sides.same(
        "seq 50000 > n; sort -R n | sort -n -T . -S 512K -o m; cmp n m; sort -n m -o m; cmp n m
         split -l 1000 n part; cat part* | cmp - n; ls | wc -l; rm part*
         gzip -kn n; gzip -t n.gz; zcat n.gz | cmp - n; tail -c 6 n; tac n | sha256sum
         mkfifo p; (echo through > p &); cat p; truncate -s 64M huge; echo end >> huge; stat -c %s huge
         cp --sparse=always huge h2; cmp huge h2; du -k huge h2 | awk '$1 > 100'",
    );
    let map = "import mmap, os; f = open('m', 'w+b'); f.truncate(10000)
m = mmap.mmap(f.fileno(), 0); m[5000:5005] = b'hello'; m.flush(); m.close()
f.seek(5000); print(f.read(5)); os.replace('m', 'saved'); print(os.stat('saved').st_size)";
    assert_eq!(sides.same(&format!("python3 -c \"{map}\"")), "b'hello'\n10000\n");
    sides.same_files_after_remount();
}

/// Mail is delivered by several processes at once: written to tmp, linked or renamed to new, moved to
/// cur with its flags by the reader. Message names differ from run to run, so counts are compared.
#[test]
fn a_maildir_takes_deliveries_of_many() {
    let mut sides = Sides::start(&["python3"]);
    let deliver = r#"
import mailbox, os
mailbox.Maildir("box").add_folder("sent")
def deliver(who):
    box = mailbox.Maildir("box", create=False)
    for n in range(50):
        box.add("From: a@b\nSubject: %d.%d\n\n%s\n" % (who, n, "x" * (n * 40)))
children = []
for who in range(3):
    child = os.fork()
    if child == 0:
        deliver(who)
        os._exit(0)
    children.append(child)
box = mailbox.Maildir("box", create=False)
seen = set()
while children:
    ended, status = os.waitpid(-1, os.WNOHANG)
    if ended:
        assert status == 0
        children.remove(ended)
    for key in list(box.keys()):
        message = box[key]
        if message.get_subdir() == "new":
            assert len(message.get_payload()) == 40 * int(message["Subject"].split(".")[1]) + 1
            seen.add(message["Subject"])
            message.add_flag("S")
            message.set_subdir("cur")
            box[key] = message
for key in box.keys():
    seen.add(box[key]["Subject"])
print(len(seen), len(box), len(os.listdir("box/tmp")))
"#;
    let script = format!("python3 -c '{deliver}'; ls box box/.sent");
    assert!(sides.same(&script).starts_with("150 150 0\n"));
    sides.mount.remount();
    let read = r#"
import mailbox
box = mailbox.Maildir("box", create=False)
for subject, length in sorted((m["Subject"], len(m.get_payload())) for m in box):
    print(subject, length)
"#;
    sides.same(&format!("python3 -c '{read}'"));
}
