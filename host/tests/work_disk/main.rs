//! Work disks of stopped machines: real ext4 images, made by e2fsprogs without root.

mod crafted;
mod disk;
mod fixture;
mod journal;
mod sessions;
