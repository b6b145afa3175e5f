//! The rules of device twins, and how a payload is made to fit them.
//!
//! A decoded payload is whatever a device's codec made of a frame; IoT Hub refuses a whole patch for one key, one
//! integer or one array that breaks a rule. [`fit_reported`] turns any JSON object into a merge patch that breaks none.
//! Only what breaks a rule is changed, and every change follows one documented rule (`docs/semantics.md`):
//!
//! | what IoT Hub refuses | what is written |
//! |---|---|
//! | a character of a key | `_xHHHH_` in its place: `pm2.5` → `pm2_x002E_5` |
//! | a key longer than [`MAX_KEY_BYTES`] | its beginning, `_xFFFF_` and a hash of the whole |
//! | a string longer than [`MAX_STRING_BYTES`] | its beginning and [`CUT_MARK`] |
//! | an integer outside [`INTEGERS`] | the nearest floating point number |
//! | `null` in an array | the string `"null"`: positions stay |
//! | `null` in an object in an array | nothing: the member is left out |
//! | an object or array below level [`MAX_DEPTH`] | its JSON text, a string |
//! | a section that would not fit | [`TOO_LARGE`] in place of its largest members |
//!
//! `null` as a member of an object outside arrays stays: in a patch it deletes the key, which is what "no value" means.
//!
//! The rules and their sources: `Azure/iotedge
//! edge-hub/core/src/Microsoft.Azure.Devices.Edge.Hub.Core/twin/ReportedPropertiesValidator.cs` and
//! `MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-device-twins.md`.

mod check;
mod fit;
mod keys;
mod merge;
mod size;
#[cfg(test)]
mod tests;
mod values;

use std::ops::RangeInclusive;

pub use check::{Violation, check};
pub use fit::{Fitted, TOO_LARGE, fit_reported};
pub use keys::escape;
pub use merge::{diff, merge};
pub use size::size;
pub use values::CUT_MARK;

/// Largest `reported` section as [`size`] counts it.
pub const MAX_SECTION_BYTES: usize = 32 * 1024;

/// Longest key in UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// Longest string in UTF-8.
pub const MAX_STRING_BYTES: usize = 4096;

/// How many objects and arrays may nest below the section. A scalar may sit in the innermost.
pub const MAX_DEPTH: usize = 10;

/// The integers that a twin stores. Floating point numbers are free.
pub const INTEGERS: RangeInclusive<i64> = -(1 << 52)..=(1 << 52) - 1;

/// A key as a note or an error names it: printable and not longer than a line.
fn name(key: &str) -> String {
    const LONGEST_NAME: usize = 48;
    let mut name: String = key.chars().take(LONGEST_NAME).flat_map(char::escape_debug).collect();
    if key.chars().nth(LONGEST_NAME).is_some() {
        name.push('…');
    }
    name
}
