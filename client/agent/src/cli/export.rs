//! `nightshift-agent export`: an adapter, or a base with an adapter in it, for other programs.

use std::path::{Path, PathBuf};

use aggregation::IdentityPublic;
use clap::{Args, ValueEnum};
use formats::{MANIFEST_FILE, Manifest, ManifestError, Origin, SignedRelease, held, name_of_base};
use serde::Serialize;

use client::adapter_files::{
    Adapter, AdapterFileError, read_installed, read_peft, write_gguf, write_peft, write_whole,
};
use client::enrollment::{EnrollmentError, publisher};
use client::store::{DeviceStore, DeviceStoreError};
use engine::{Base, BaseError};
use proto::counted::counted;
use proto::files::FileError;
use proto::ids::TaskId;

use super::path;

/// What to write, and from what.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The form of the files
    #[arg(long = "as", value_enum, default_value_t = Form::Peft)]
    form: Form,
    /// A PEFT folder; what this device has installed where it is left out
    #[arg(long, value_name = "DIR", value_parser = path())]
    adapter: Option<PathBuf>,
    /// The task whose installed version it is, where there are versions of several: its id, the beginning of it, or its name
    #[arg(long, value_name = "TASK", conflicts_with = "adapter")]
    task: Option<String>,
    /// The folder to write; a merged base needs one that is new or empty
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: PathBuf,
    /// Write into the folder although it holds something else than an earlier version of the same task
    #[arg(long)]
    force: bool,
    /// The base's name in a PEFT configuration; by default the hub's, or the path where it lies
    #[arg(long, value_name = "NAME")]
    base_name: Option<String>,
    /// The manifest that `nightshift model pull` wrote of the installed version: its signature is passed on
    #[arg(long, value_name = "FILE", conflicts_with = "adapter", value_parser = path())]
    release: Option<PathBuf>,
}

/// A form of files that other programs load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// `adapter_config.json` and `adapter_model.safetensors`, for transformers with PEFT, vLLM and others
    Peft,
    /// `adapter.gguf`, for llama.cpp
    Gguf,
    /// The base with the adapter in its weights, as a Hugging Face folder
    Merged,
}

impl ExportArgs {
    /// The task that is named.
    pub(super) fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }
}

/// What was written.
#[derive(Debug, Serialize)]
pub(super) struct Exported {
    form: Form,
    out: PathBuf,
    manifest: PathBuf,
    modules: usize,
}

/// An export that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportFailure {
    /// The base.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The adapter, or a folder.
    #[error(transparent)]
    Adapter(#[from] AdapterFileError),
    /// What is durable of this device.
    #[error(transparent)]
    Memory(#[from] DeviceStoreError),
    /// Its enrolment.
    #[error(transparent)]
    Enrollment(#[from] EnrollmentError),
    /// The release's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The release's manifest.
    #[error("{}: {source}", path.display())]
    Release {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// No base is here.
    #[error("no base of the configuration is here yet; `nightshift-agent run` fetches those of the hub")]
    NoBase,
    /// Nothing says which of the bases is meant.
    #[error("the adapter fits several of the bases and does not say which it is for; name one by --base")]
    SeveralBases,
    /// The folder holds something else.
    #[error(
        "{} holds {what}, and is left as it is; name another folder with --out, or say --force to write over it",
        path.display()
    )]
    Held {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        what: String,
    },
    /// The release is of something else.
    #[error("{} is not of the version that is installed here", .0.display())]
    OtherRelease(PathBuf),
}

/// Writes the adapter of `args`, or the one installed below `state_dir`, which is for one of the bases that lie there.
pub(super) fn export(
    args: &ExportArgs,
    task: Option<TaskId>,
    bases: &[PathBuf],
    state_dir: &Path,
) -> Result<Exported, ExportFailure> {
    let (source, base, mut adapter) = opened(args, task, bases, state_dir)?;
    if let Some(path) = &args.release {
        let memory = DeviceStore::open(state_dir)?;
        let publisher = publisher(&memory)?.ok_or(EnrollmentError::NotEnrolled)?;
        adapter.origin = Origin::Release(release(path, &base, &adapter, &publisher)?);
    }
    // A merged base takes only a folder that is new or empty.
    if args.form != Form::Merged && !args.force {
        let found = held(&args.out, |earlier| earlier.gives_way_to(&adapter.origin));
        if let Some(what) = found.map_err(FileError::io("read", &args.out))? {
            return Err(ExportFailure::Held { path: args.out.clone(), what });
        }
    }
    match args.form {
        Form::Peft => {
            let name = args.base_name.clone().map_or_else(|| name_of_base(source), Ok);
            let name = name.map_err(FileError::io("find", source))?;
            write_peft(&args.out, &adapter, base.digest(), &name)?;
        }
        Form::Gguf => write_gguf(&args.out, &adapter, &base)?,
        Form::Merged => write_whole(&args.out, &adapter, &base, source)?,
    }
    Ok(Exported {
        form: args.form,
        out: args.out.clone(),
        manifest: args.out.join(MANIFEST_FILE),
        modules: adapter.spec.modules.len(),
    })
}

/// The adapter, and the base that it is for. A base that cannot be read, or is another, stands in the way only where there
/// is no other.
fn opened<'a>(
    args: &ExportArgs,
    task: Option<TaskId>,
    bases: &'a [PathBuf],
    state_dir: &Path,
) -> Result<(&'a Path, Base, Adapter), ExportFailure> {
    let mut other = ExportFailure::NoBase;
    let mut found: Option<(&Path, Base, Adapter)> = None;
    for source in bases {
        let base = match Base::open(source) {
            Ok(base) => base,
            Err(error) => {
                other = error.into();
                continue;
            }
        };
        let adapter = match &args.adapter {
            Some(folder) => read_peft(folder, &base),
            None => read_installed(state_dir, task, &base),
        };
        match adapter {
            Ok(adapter) if says_its_base(args) => return Ok((source, base, adapter)),
            // What does not say of which base it is may fit several.
            Ok(adapter) => match &found {
                Some((_, other, _)) if other.digest() == base.digest() => {}
                Some(_) => return Err(ExportFailure::SeveralBases),
                None => found = Some((source, base, adapter)),
            },
            Err(error @ (AdapterFileError::OtherBase { .. } | AdapterFileError::Modules { .. })) => {
                other = error.into();
            }
            Err(error) => return Err(error.into()),
        }
    }
    found.ok_or(other)
}

/// Whether what is exported names its base by its digest: all that is installed does, and what has a manifest.
fn says_its_base(args: &ExportArgs) -> bool {
    args.adapter.as_ref().is_none_or(|folder| folder.join(MANIFEST_FILE).exists())
}

/// What this device's coordinator signed of exactly this version on this base.
fn release(
    path: &Path,
    base: &Base,
    adapter: &Adapter,
    publisher: &IdentityPublic,
) -> Result<SignedRelease, ExportFailure> {
    let refuse = |source| ExportFailure::Release { path: path.to_owned(), source };
    let manifest = Manifest::parse(&proto::files::read(path)?).map_err(refuse)?;
    if let (Origin::Release(signed), Origin::Version(version)) = (manifest.origin, &adapter.origin)
        && manifest.base == base.digest()
        && signed.release.version == *version
    {
        signed.verify(&manifest.base, publisher).map_err(refuse)?;
        return Ok(signed);
    }
    Err(ExportFailure::OtherRelease(path.to_owned()))
}

impl ExportFailure {
    /// The exit code: 3 where base or adapter cannot be used, 4 where this device's state cannot, 5 where it is not
    /// enrolled.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Adapter(AdapterFileError::Installed { .. })
            | Self::Memory(_)
            | Self::Enrollment(
                EnrollmentError::Keys(_)
                | EnrollmentError::Store(_)
                | EnrollmentError::Transport(_)
                | EnrollmentError::Answer(_)
                | EnrollmentError::Tpm(_)
                | EnrollmentError::Interrupted
                | EnrollmentError::OtherAuthority { .. }
                | EnrollmentError::Damaged(_),
            ) => 4,
            Self::Enrollment(EnrollmentError::NotEnrolled) => 5,
            Self::Base(_)
            | Self::Adapter(
                AdapterFileError::File(_)
                | AdapterFileError::Export(_)
                | AdapterFileError::Merge(_)
                | AdapterFileError::Peft { .. }
                | AdapterFileError::Pickled { .. }
                | AdapterFileError::Manifest { .. }
                | AdapterFileError::OtherBase { .. }
                | AdapterFileError::SeveralTasks { .. }
                | AdapterFileError::Modules { .. }
                | AdapterFileError::NothingInstalled(_),
            )
            | Self::File(_)
            | Self::Release { .. }
            | Self::NoBase
            | Self::SeveralBases
            | Self::Held { .. }
            | Self::OtherRelease(_) => 3,
        }
    }
}

impl Exported {
    /// What a person reads.
    pub(super) fn text(&self) -> String {
        let what = match self.form {
            Form::Peft => "an adapter for PEFT",
            Form::Gguf => "an adapter for llama.cpp",
            Form::Merged => "the base with the adapter",
        };
        let changed = counted(self.modules, "layer", "layers");
        format!("{what}, {changed} changed, written to {}", self.out.display())
    }
}

#[cfg(test)]
mod tests {
    use aggregation::IdentityKey;
    use clap::Parser;
    use formats::{Personal, Release, Version};
    use proto::adapter::{AdapterSpec, Factors, Method};
    use proto::ids::Digest;

    use super::*;
    use engine::Projection;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExportArgs,
    }

    fn args(words: &[&str]) -> ExportArgs {
        Line::try_parse_from([&["export"], words].concat()).unwrap_or_else(|error| panic!("{error}")).args
    }

    fn source() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/reference/base")
    }

    fn adapter(base: &Base, origin: Origin) -> Adapter {
        let modules = base.modules(&[Projection::Q]);
        let factors = Factors::Seeded(Digest([0; 32]));
        let spec = AdapterSpec { method: Method::Both, rank: 2, alpha: 3.0, factors, modules };
        let trained = vec![0.25; spec.trained_len()];
        Adapter { spec, frozen: Vec::new(), trained, origin }
    }

    #[test]
    fn a_folder_is_exported_in_every_form() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::open(&source()).unwrap();
        let personal = Origin::Personal(Personal { seed: 1, steps: 2, documents: 3, tokens: 4 });
        let from = folder.path().join("from");
        write_peft(&from, &adapter(&base, personal.clone()), base.digest(), "a-base").unwrap();
        for (form, file) in
            [("peft", "adapter_config.json"), ("gguf", "adapter.gguf"), ("merged", "model.safetensors")]
        {
            let out = folder.path().join(form);
            let words = ["--as", form, "--adapter", from.to_str().unwrap(), "--out", out.to_str().unwrap()];
            let exported = export(&args(&words), None, &[source()], folder.path()).unwrap();
            assert_eq!(exported.modules, 2);
            let manifest = Manifest::parse(&std::fs::read(&exported.manifest).unwrap()).unwrap();
            assert_eq!(manifest.origin, personal, "{form}");
            assert!(manifest.files.contains_key(file), "{form}: {:?}", manifest.files);
        }
        let out = folder.path().join("none");
        let words = ["--out", out.to_str().unwrap()];
        let failure = export(&args(&words), None, &[source()], folder.path()).unwrap_err();
        assert_eq!(failure.code(), 3);
        assert!(failure.to_string().starts_with("nothing is installed in "), "{failure}");
        assert!(!out.exists());
    }

    #[test]
    fn what_came_from_somewhere_else_is_not_written_over_unless_somebody_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::open(&source()).unwrap();
        let version = |task, version| {
            let (task, plan) = (TaskId([task; 16]), Digest([2; 32]));
            Origin::Version(Version { task, version, plan, adapter: Digest([3; 32]) })
        };
        let from = folder.path().join("from");
        let mine = adapter(&base, version(7, 2));
        write_peft(&from, &mine, base.digest(), "a-base").unwrap();
        let out = folder.path().join("out");
        let words = ["--adapter", from.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let write = |more: &[&str]| export(&args(&[&words, more].concat()), None, &[source()], folder.path());
        let names = || {
            let entries = std::fs::read_dir(&out).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        // An earlier version of the task gives way, and of another form nothing is left.
        write_peft(&out, &adapter(&base, version(7, 1)), base.digest(), "a-base").unwrap();
        std::fs::write(out.join("README"), "mine").unwrap();
        write(&["--as", "gguf"]).unwrap();
        assert_eq!(names(), ["README", "adapter.gguf", MANIFEST_FILE]);
        write(&["--as", "peft"]).unwrap();
        assert_eq!(names(), ["README", "adapter_config.json", "adapter_model.safetensors", MANIFEST_FILE]);
        // Another task's does not.
        write_peft(&out, &adapter(&base, version(8, 1)), base.digest(), "a-base").unwrap();
        let before = std::fs::read(out.join(MANIFEST_FILE)).unwrap();
        let failure = write(&[]).unwrap_err();
        assert_eq!(failure.code(), 3);
        let said = failure.to_string();
        assert!(
            said.contains("version 1 of another task") && said.ends_with("--force to write over it"),
            "{said}"
        );
        assert_eq!(std::fs::read(out.join(MANIFEST_FILE)).unwrap(), before);
        write(&["--force"]).unwrap();
        assert_ne!(std::fs::read(out.join(MANIFEST_FILE)).unwrap(), before);
        let notes = folder.path().join("notes");
        std::fs::create_dir(&notes).unwrap();
        std::fs::write(notes.join("diary.md"), "mine").unwrap();
        let words = ["--adapter", from.to_str().unwrap(), "--out", notes.to_str().unwrap()];
        let failure = export(&args(&words), None, &[source()], folder.path()).unwrap_err().to_string();
        assert!(failure.contains("holds diary.md, and no nightshift.json"), "{failure}");
    }

    #[test]
    fn a_release_is_passed_on_for_the_version_that_it_is_of() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::open(&source()).unwrap();
        let version =
            Version { task: TaskId([1; 16]), version: 4, plan: Digest([2; 32]), adapter: Digest([3; 32]) };
        let said = Release { version, parent: 3, round: 9, survivors: 40, epsilon: 2.5, delta: 1e-5 };
        let key = IdentityKey::from_seed(&[5; 32]);
        let signed = said.sign(&base.digest(), &key);
        let path = folder.path().join(MANIFEST_FILE);
        let manifest = Manifest::new(base.digest(), Origin::Release(signed), []);
        std::fs::write(&path, manifest.to_bytes().unwrap()).unwrap();
        let mine = adapter(&base, Origin::Version(version));
        assert_eq!(release(&path, &base, &mine, &key.public()).unwrap(), signed);
        let somebody = IdentityKey::from_seed(&[6; 32]).public();
        let error = release(&path, &base, &mine, &somebody).unwrap_err().to_string();
        assert!(error.contains("is signed by the key "), "{error}");
        let other = adapter(&base, Origin::Version(Version { version: 5, ..version }));
        let error = release(&path, &base, &other, &key.public()).unwrap_err().to_string();
        assert!(error.ends_with("is not of the version that is installed here"), "{error}");
    }
}
