//! A past stretch as one web page: what would have been done, and why, with the numbers and their curves.
//!
//! The page is a file of its own: no network, no script. Its curves are drawn here, not by a plotting library, so that
//! they take their colours from the page (dark or light), keep fractions of a pixel, and have names for those who can't
//! see them.
//!
//! What is kept is bounded, however long the stretch: a timeline in at most `timeline::MOST_BINS` parts, the newest
//! quarter of an hour in full, and the curves of the `story::MOST_PLOTTED` weightiest decisions.

mod card;
mod collect;
mod draw;
mod figure;
mod lanes;
mod page;
mod plot;
mod review;
pub mod status;
mod story;
#[cfg(test)]
mod tests;
mod timeline;
mod words;

use std::io;
use std::path::{Path, PathBuf};

pub use collect::Collector;
pub use review::{Review, Told};

use self::story::Stories;
use self::timeline::Timeline;
use crate::domain::{CycleLength, Record};
use jiff::Timestamp;

/// What the page says of the backtest as a whole.
#[derive(Debug, Clone)]
pub struct About {
    pub start: Timestamp,
    pub end: Timestamp,
    pub cycle: CycleLength,
    /// The settings that matter most, by name.
    pub settings: Vec<(&'static str, String)>,
}

/// All that goes onto the page.
#[derive(Debug)]
pub struct Report {
    about: About,
    summary: Record,
    timeline: Timeline,
    stories: Stories,
}

impl Report {
    /// The page.
    pub fn html(&self) -> String {
        page::html(self)
    }
}

/// Why a page can't be written to a path, as far as that can be known beforehand.
pub fn check(path: &Path) -> io::Result<()> {
    let folder = folder(path);
    if path.is_dir() || path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder: name a file in it"));
    }
    if !folder.is_dir() {
        let why = format!("there is no folder {}", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    Ok(())
}

/// Writes the page as a whole or not at all.
pub fn write(path: &Path, html: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let partial = folder(path).join(name);
    let written = std::fs::write(&partial, html).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // What could not be made can't be removed either, and the first error says why.
        let _gone = std::fs::remove_file(&partial);
    }
    written
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
