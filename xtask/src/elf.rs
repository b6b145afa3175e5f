//! Whether a binary needs nothing from the machine that it lands on.
//!
//! The C library of a Functions plan is not documented, and older ones than a build machine's were seen
//! (`Azure/Azure-Functions` issue 2570): so the binary brings its own.

use anyhow::{Context as _, Result, ensure};
use object::Endianness;
use object::elf::{DT_NEEDED, EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

/// Checks that these are the bytes of a static program for 64-bit Linux on x86.
///
/// # Errors
/// If they are not, with the reason.
pub(crate) fn must_be_static(binary: &[u8]) -> Result<()> {
    const REMEDY: &str = "build it with `-C target-feature=+crt-static`, as `cargo xtask package` does";
    let header = FileHeader64::<Endianness>::parse(binary).context("read it as a 64-bit ELF file")?;
    let endian = header.endian()?;
    ensure!(header.e_machine(endian) == EM_X86_64, "it is not for x86-64, the only machine that the package is for");
    for segment in header.program_headers(endian, binary).context("read its program headers")? {
        ensure!(segment.p_type(endian) != PT_INTERP, "it asks for a dynamic linker; {REMEDY}");
        let dynamic = segment.dynamic(endian, binary).context("read its dynamic section")?.unwrap_or_default();
        let needed = dynamic.iter().any(|entry| entry.d_tag(endian) == DT_NEEDED);
        ensure!(!needed, "it asks for shared libraries; {REMEDY}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Linkage, elf, program};

    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;

    #[test]
    fn a_static_program_passes_and_any_other_is_refused_with_the_reason() {
        must_be_static(&program("hello")).expect("static");
        for (binary, complaint) in [
            (elf("hello", X86_64, Linkage::Interpreter), "asks for a dynamic linker"),
            (elf("hello", X86_64, Linkage::Needed), "asks for shared libraries"),
            (elf("hello", AARCH64, Linkage::Static), "not for x86-64"),
            (b"#!/bin/sh\necho hello\n".to_vec(), "64-bit ELF"),
            (program("hello")[..100].to_vec(), "program headers"),
            (vec![], "64-bit ELF"),
        ] {
            let error = format!("{:#}", must_be_static(&binary).expect_err(complaint));
            assert!(error.contains(complaint), "{complaint}: {error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_as_the_compiler_makes_it_by_default_is_refused() {
        let this = std::fs::read(std::env::current_exe().expect("a path")).expect("bytes");
        assert!(must_be_static(&this).expect_err("dynamic").to_string().contains("crt-static"));
    }
}
