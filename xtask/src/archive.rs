//! Writes the zip: the same files make the same bytes.

use std::fs;
use std::io::{Seek, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Mode bits of the executable: Functions that mount a package read-only cannot add them later.
pub(crate) const EXECUTABLE_MODE: u32 = 0o755;
/// Mode bits of every other file.
pub(crate) const FILE_MODE: u32 = 0o644;

/// Writes the files, in the order given.
///
/// # Errors
/// If a file cannot be read or the zip not be written.
pub(crate) fn write(zip: impl Write + Seek, root: &Path, names: &[String], executable: &str) -> Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        // The earliest time that a zip can tell: no build's clock gets into it.
        .last_modified_time(DateTime::default());
    let mut zip = ZipWriter::new(zip);
    for name in names {
        let bytes = fs::read(root.join(name)).with_context(|| format!("read {name}"))?;
        let mode = if name == executable { EXECUTABLE_MODE } else { FILE_MODE };
        zip.start_file(name, options.unix_permissions(mode))?;
        zip.write_all(&bytes).with_context(|| format!("pack {name}"))?;
    }
    zip.finish()?.flush()?;
    Ok(())
}
