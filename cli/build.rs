//! Packs the binary's relative relocations: the dynamic linker applies tens of thousands of them at
//! each start, and reading them unpacked took a third of a short command's time. Needs glibc 2.36,
//! which Debian 12 has.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
