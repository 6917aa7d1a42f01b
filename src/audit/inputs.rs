//! Files that decisions rest on, beside the journal: each is named by its moment and its hash, which the decisions cite.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::source::{self, Source};

const PREFIX: &str = "inputs-";
/// Digits of the hash in a name; the whole is checked.
const DIGITS: usize = 16;
/// A larger one is not kept.
const LARGEST: usize = 64 << 20;

#[derive(Debug, Error)]
pub enum InputsError {
    #[error("what it rests on is not at hand: standard input has the journal alone; name the directory of the journal")]
    NoFolder,
    #[error("{} has no file inputs-*-{digits}.json.gz: it was retired, or removed", folder.display())]
    Gone { folder: PathBuf, digits: String },
    #[error("{} can't be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} was changed after it was written: its SHA-256 is {found}, and the entry cites {cited}", path.display())]
    Changed { path: PathBuf, found: String, cited: String },
}

fn sha256(file: &[u8]) -> String {
    hex::encode(Sha256::digest(file))
}

/// Writes one as a whole or not at all, and returns its hash.
pub(super) fn keep(directory: &Path, time: Timestamp, file: &[u8]) -> std::io::Result<String> {
    if file.len() > LARGEST {
        return Err(std::io::Error::other(format!("{} MiB are too many", file.len() >> 20)));
    }
    let hash = sha256(file);
    let stamp = time.strftime("%Y%m%dT%H%M%SZ");
    let path = directory.join(format!("{PREFIX}{stamp}-{}.json.gz", &hash[..DIGITS]));
    let partial = path.with_extension("partial");
    std::fs::create_dir_all(directory)?;
    let written = File::create(&partial).and_then(|mut out| {
        out.write_all(file)?;
        out.sync_all()
    });
    let written = written.and_then(|()| std::fs::rename(&partial, &path));
    if written.is_err() {
        // A disk that is full must not stay full for it.
        let _gone = std::fs::remove_file(&partial);
    }
    written.map(|()| hash)
}

/// All of them, oldest first; those that were not finished, too.
pub(super) fn all(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if source::name(&path).starts_with(PREFIX) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file is the one of that hash, by its name.
pub(super) fn is_of(path: &Path, hash: &str) -> bool {
    hash.get(..DIGITS).is_some_and(|digits| source::name(path).contains(digits))
}

/// The file that an entry cites, exactly as it was written.
pub fn inputs(source: &Source, hash: &str) -> Result<Vec<u8>, InputsError> {
    let folder = source.folder().ok_or(InputsError::NoFolder)?;
    let unreadable = |path: &Path, source| InputsError::Unreadable { path: path.to_owned(), source };
    let files = all(folder).map_err(|error| unreadable(folder, error))?;
    let Some(path) = files.into_iter().find(|path| is_of(path, hash)) else {
        let digits = hash.get(..DIGITS).unwrap_or(hash).to_owned();
        return Err(InputsError::Gone { folder: folder.to_owned(), digits });
    };
    let file = std::fs::read(&path).map_err(|error| unreadable(&path, error))?;
    let found = sha256(&file);
    if found == hash { Ok(file) } else { Err(InputsError::Changed { path, found, cited: hash.to_owned() }) }
}
