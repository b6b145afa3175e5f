use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::testing::{Linkage, elf, program};

const HOST: &[u8] = br#"{"customHandler": {"description": {"defaultExecutablePath": "bin/app"}}}"#;
const VERSION: &str = "1.2.3";

fn verify(zip: &[u8], version: &str) -> Result<Verified> {
    super::verify(zip, version, &BTreeSet::from(["F".to_owned()]))
}

/// A zip of these files with these modes.
fn zip(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, bytes, mode) in files {
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).expect("an entry");
        zip.write_all(bytes).expect("its bytes");
    }
    zip.finish().expect("a zip").into_inner()
}

#[test]
fn a_good_package_passes_and_is_described() {
    let binary = program("tts-iot-hub 1.2.3\n");
    let zip = zip(&[("F/function.json", b"{}", 0o644), ("bin/app", &binary, 0o755), ("host.json", HOST, 0o644)]);
    let size = zip.len();
    let verified = verify(&zip, VERSION).expect("a package");
    assert_eq!((verified.files, verified.bytes, verified.executable_bytes), (3, size, binary.len()));
    assert_eq!((verified.executable.as_str(), verified.says.as_str()), ("bin/app", "tts-iot-hub 1.2.3"));
    assert_eq!(verified.sha256.len(), 64);
}

#[test]
fn each_fault_of_a_package_is_found_and_named() {
    let good = program("tts-iot-hub 1.2.3\n");
    let old = program("tts-iot-hub 1.2.2\n");
    let dynamic = elf("tts-iot-hub 1.2.3\n", 62, Linkage::Interpreter);
    let function: (&str, &[u8], u32) = ("F/function.json", b"{}", 0o644);
    let host: (&str, &[u8], u32) = ("host.json", HOST, 0o644);
    for (files, complaint) in [
        (vec![function, ("bin/app", &good, 0o644), host], "bin/app: its mode is 644, not 755"),
        (vec![function, ("bin/app", &good, 0o755), ("host.json", HOST, 0o666)], "host.json: its mode is 666, not 644"),
        (vec![function, ("./bin/app", &good, 0o755), host], "bin/app: host.json starts it"),
        (vec![function, ("bin/app", &good, 0o755), host, ("notes.txt", b"", 0o644)], "notes.txt"),
        (vec![function, ("bin/app", &good, 0o755)], "no host.json"),
        (
            vec![function, ("G/function.json", b"{}", 0o644), ("bin/app", &good, 0o755), host],
            "its functions are F, G, not F",
        ),
        (vec![("G/function.json", b"{}", 0o644), ("bin/app", &good, 0o755), host], "its functions are G, not F"),
        (
            vec![("F/function.json", b"[]", 0o644), ("bin/app", &good, 0o755), host],
            "F/function.json: read it as a JSON object",
        ),
        (vec![function, ("bin/app", &dynamic, 0o755), host], "bin/app: it asks for a dynamic linker"),
        (vec![function, ("bin/app", b"#!/bin/sh\n", 0o755), host], "bin/app: read it as a 64-bit ELF"),
        (
            vec![function, ("bin/app", &old, 0o755), host],
            "bin/app: it says `tts-iot-hub 1.2.2`, not `tts-iot-hub 1.2.3`",
        ),
    ] {
        let error = format!("{:#}", verify(&zip(&files), VERSION).expect_err(complaint));
        assert!(error.contains(complaint), "{complaint}: {error}");
    }
}

#[test]
fn what_is_no_zip_or_a_damaged_one_is_an_error() {
    assert!(verify(b"no zip", VERSION).is_err());
    let binary = program("tts-iot-hub 1.2.3\n");
    let mut bytes = zip(&[("bin/app", &binary, 0o755), ("host.json", HOST, 0o644)]);
    bytes[60] ^= 1;
    assert!(verify(&bytes, VERSION).is_err());
}
