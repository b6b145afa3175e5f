//! What the tests are made of: folders and the smallest programs that Linux runs.

use std::fs;

use tempfile::TempDir;

/// A folder with these files, gone when dropped.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        write(&root, path, text.as_bytes());
    }
    root
}

/// Writes one file into it.
pub(crate) fn write(root: &TempDir, path: &str, bytes: &[u8]) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, bytes).expect("a file");
}

/// What a program carries that a static one does not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linkage {
    Static,
    /// Names a dynamic linker.
    Interpreter,
    /// Names a shared library.
    Needed,
}

const X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const BASE: u64 = 0x40_0000;

/// A static x86-64 program that prints `text`.
pub(crate) fn program(text: &str) -> Vec<u8> {
    elf(text, X86_64, Linkage::Static)
}

/// The same, of another kind of machine or linked otherwise.
pub(crate) fn elf(text: &str, machine: u16, linkage: Linkage) -> Vec<u8> {
    let headers: u16 = if linkage == Linkage::Static { 1 } else { 2 };
    let code_at = 64 + 56 * u64::from(headers);
    let code = print_and_exit(text.len());
    let text_at = code_at + code.len() as u64;
    let extra_at = (text_at + text.len() as u64).next_multiple_of(8);
    // DT_NEEDED of string 1, then DT_NULL; or the path of a linker.
    let (extra_kind, extra): (u32, Vec<u8>) = match linkage {
        Linkage::Static => (0, vec![]),
        Linkage::Interpreter => (PT_INTERP, b"/lib64/ld-linux-x86-64.so.2\0".to_vec()),
        Linkage::Needed => (PT_DYNAMIC, [1_u64, 1, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()),
    };
    let size = extra_at + extra.len() as u64;

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, machine] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [BASE + code_at, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, headers, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    segment(&mut file, PT_LOAD, 0, size);
    if linkage != Linkage::Static {
        segment(&mut file, extra_kind, extra_at, extra.len() as u64);
    }
    file.extend(code);
    file.extend(text.as_bytes());
    file.resize(usize::try_from(extra_at).expect("small"), 0);
    file.extend(extra);
    file
}

fn segment(file: &mut Vec<u8>, kind: u32, at: u64, size: u64) {
    const READ_AND_EXECUTE: u32 = 5;
    for word in [kind, READ_AND_EXECUTE] {
        file.extend(word.to_le_bytes());
    }
    for word in [at, BASE + at, BASE + at, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
}

/// `write(1, text, length); exit(0)`, with the text right behind the code.
fn print_and_exit(length: usize) -> Vec<u8> {
    /// From behind the `lea` to the text: two `mov` of 5 bytes before a `syscall`, one and an `xor` before the other.
    const TO_TEXT: u8 = (5 + 5 + 2) + (5 + 2 + 2);
    let mut code = vec![0xbf, 1, 0, 0, 0]; // mov edi, 1
    code.extend([0x48, 0x8d, 0x35, TO_TEXT, 0, 0, 0]); // lea rsi, [rip + text]
    code.push(0xba); // mov edx, length
    code.extend(u32::try_from(length).expect("short").to_le_bytes());
    code.extend([0xb8, 1, 0, 0, 0, 0x0f, 0x05]); // mov eax, 1; syscall
    code.extend([0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]); // mov eax, 60; xor edi, edi; syscall
    code
}
