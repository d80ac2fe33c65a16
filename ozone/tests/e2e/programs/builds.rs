//! Compilers and what drives them.

use std::fs;
use std::path::Path;

use crate::harness::sides::Sides;

/// A program of 40 C files with a static and a shared library.
fn make_sources(dir: &Path) {
    const FILES: usize = 40;
    fs::create_dir(dir).unwrap();
    let mut header = String::new();
    let mut sum = String::new();
    for n in 0..FILES {
        let source = format!("#include \"all.h\"\nint f{n}(int x) {{ return x + {n}; }}\n");
        fs::write(dir.join(format!("f{n}.c")), source).unwrap();
        header += &format!("int f{n}(int);\n");
        sum += &format!(" + f{n}(1)");
    }
    fs::write(dir.join("all.h"), format!("#include <stdio.h>\n{header}")).unwrap();
    let main =
        format!("#include \"all.h\"\nint main(void) {{ printf(\"%d\\n\", 0{sum}); return 0; }}\n");
    fs::write(dir.join("main.c"), main).unwrap();
    let makefile = "\
OBJ := $(patsubst %.c,%.o,$(filter-out main.c,$(wildcard *.c)))
all: static shared
static: main.o lib.a
\tgcc -o $@ $^
shared: main.o libf.so
\tgcc -o $@ main.o -L. -lf -Wl,-rpath,'$$ORIGIN'
lib.a: $(OBJ)
\tar rcs $@ $^
libf.so: $(OBJ)
\tgcc -shared -o $@ $^
%.o: %.c
\tgcc -fPIC -MMD -c $<
-include *.d
";
    fs::write(dir.join("Makefile"), makefile).unwrap();
}

#[test]
fn make_builds_c_and_knows_what_is_up_to_date() {
    let mut sides = Sides::start(&["make", "gcc", "ar", "strip"]);
    make_sources(&sides.local.path().join("prog"));
    make_sources(&sides.mount.join("prog"));
    let said = sides.same("cd prog; make -s -j2; ./static; ./shared; make -s -q && echo fresh");
    assert_eq!(said, "820\n820\nfresh\n");
    sides.same_files_after_remount();
    sides.same(
        "cd prog; make -s -q && echo fresh
         touch f3.c; make -j2 -n | sort; make -s -j2; touch all.h; make -n | grep -c -- -c
         make -s -j2; strip static; ./static; gcc -g -O1 -flto -o lto *.c 2>&1; ./lto
         rm -f *.o *.d; make -s -j2 -B; ./shared",
    );
}

/// The registry's crate comes through the user's cargo home, the build stays in the directory.
#[test]
fn cargo_builds_a_crate() {
    let mut sides = Sides::start(&["cargo", "gcc"]);
    sides.same(
        "unset CARGO_TARGET_DIR RUSTFLAGS RUSTC_WRAPPER
         cargo new -q --vcs none --name small crate; cd crate
         echo 'itoa = \"=1.0.11\"' >> Cargo.toml
         echo 'fn main() { println!(\"{}\", itoa::Buffer::new().format(42u32)); }
               #[test] fn works() { assert_eq!(itoa::Buffer::new().format(1u8), \"1\"); }' > src/main.rs
         cargo run -q -j2
         [ -z \"$(cargo build --message-format short 2>&1 | grep Compiling)\" ]
         cargo test -q -j2 | grep -o '1 passed'; cat Cargo.lock
         sed -i s/42/43/ src/main.rs; cargo run -q",
    );
    sides.mount.remount();
    // Times and lock files are as they were left: nothing is built again.
    sides.same(
        "unset CARGO_TARGET_DIR RUSTFLAGS RUSTC_WRAPPER; cd crate
         [ -z \"$(cargo build 2>&1 | grep Compiling)\" ]; cargo run -q; cargo clean -q; ls -A",
    );
}
