//! The versions that a device holds for its user: of each task the current one and the one before.
//!
//! `installed/TASK/VERSION/` holds `adapter.f32`, the trained parameters as they were published; `shipped.f32`, all of the
//! change as an adapter of two factors; and `manifest.json`, which says what both are. `installed/TASK/current` names the
//! version that counts. It is written last, so that what it names is whole.

use std::fs;
use std::path::{Path, PathBuf};

use proto::adapter::AdapterSpec;
use proto::ids::{Digest, TaskId};
use proto::message::Published;
use proto::plan::vector_to_bytes;
use serde::Deserialize;
use session::Work;

use super::error::DeviceStoreError;
use crate::files::{self, Audience, FileError};

const CURRENT: &str = "current";
const MANIFEST: &str = "manifest.json";
const ADAPTER: &str = "adapter.f32";

/// The files of a version.
const FILES: [&str; 3] = [ADAPTER, "shipped.f32", MANIFEST];

/// The room that installed versions have where nobody says otherwise, in MiB.
pub const DEFAULT_INSTALLED_MIB: u64 = 4096;

/// The versions below a device's folder.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    folder: PathBuf,
    most_bytes: u64,
}

/// What of a manifest says which version it is of.
#[derive(Deserialize)]
struct Manifest {
    published: Published,
}

impl Installed {
    /// Of the device whose state is below `folder`, up to `most_mib` MiB of them.
    pub(super) fn below(folder: &Path, most_mib: u64) -> Self {
        Self { folder: folder.join("installed"), most_bytes: most_mib.saturating_mul(1 << 20) }
    }

    /// Keeps a version, which is from then on the current one of its task; of the others only the one that was current
    /// stays, and that only while there is room for it.
    ///
    /// Fails, with nothing changed, where the current versions of all tasks have no room together.
    pub(super) fn install(
        &self,
        work: &Work,
        (shipped, parameters): &(AdapterSpec, Vec<f32>),
    ) -> Result<(), DeviceStoreError> {
        let Published { task, version, .. } = work.published;
        let folder = self.folder.join(task.to_string()).join(version.to_string());
        let before = self.current_of(task);
        let bytes = 4 * (work.adapter.len() as u64).saturating_add(parameters.len() as u64);
        self.check_room(task, bytes)?;
        // The same number with other numbers in it, as of a coordinator that was restored: what is half of each must not
        // count.
        if before == Some(version) && self.published(task) != Some(work.published) {
            let current = self.folder.join(task.to_string()).join(CURRENT);
            fs::remove_file(&current).map_err(FileError::io("delete", &current))?;
        }
        Self::write(work, (shipped, parameters), &folder).inspect_err(|_| {
            // On a disk that is full what is half there takes room from what is whole.
            if before != Some(version) && folder.exists() {
                remove(&folder);
            }
        })?;
        self.set_current(task, version)?;
        if before != Some(version) {
            self.prune(task, [Some(version), before]);
        }
        self.make_room();
        Ok(())
    }

    fn write(
        work: &Work,
        (shipped, parameters): (&AdapterSpec, &[f32]),
        folder: &Path,
    ) -> Result<(), DeviceStoreError> {
        files::create_folder(folder)?;
        files::write(&folder.join(ADAPTER), &vector_to_bytes(&work.adapter), Audience::Owner)?;
        let parameters = vector_to_bytes(parameters);
        files::write(&folder.join("shipped.f32"), &parameters, Audience::Owner)?;
        let manifest = serde_json::json!({
            "published": work.published,
            "base": work.plan.base,
            "adapter": work.plan.adapter,
            "shipped": shipped,
            "shipped_digest": Digest::of(&parameters),
        });
        Ok(files::write(&folder.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?, Audience::Owner)?)
    }

    /// Fails where a new version of a task, of so many bytes, and the current ones of all others have no room together.
    fn check_room(&self, task: TaskId, bytes: u64) -> Result<(), DeviceStoreError> {
        let others = self.tasks().into_iter().filter(|other| *other != task);
        let of_current = |other: TaskId| {
            let version = self.current_of(other)?;
            Some(bytes_below(&self.folder.join(other.to_string()).join(version.to_string())))
        };
        let needed = bytes.saturating_add(others.filter_map(of_current).sum());
        if needed <= self.most_bytes {
            return Ok(());
        }
        let (needed_mib, most_mib) = (needed.div_ceil(1 << 20), self.most_bytes >> 20);
        Err(DeviceStoreError::InstalledFull { needed_mib, most_mib })
    }

    /// Deletes versions that are not current, those of the oldest files first, until all have room together.
    fn make_room(&self) {
        let mut earlier = Vec::new();
        let mut all = 0_u64;
        for task in self.tasks() {
            let (folder, current) = (self.folder.join(task.to_string()), self.current_of(task));
            for version in names(&folder).into_iter().filter_map(|name| name.parse::<u32>().ok()) {
                let path = folder.join(version.to_string());
                let bytes = bytes_below(&path);
                all = all.saturating_add(bytes);
                if current != Some(version) {
                    let written =
                        fs::metadata(path.join(MANIFEST)).and_then(|manifest| manifest.modified()).ok();
                    earlier.push((written, path, bytes));
                }
            }
        }
        earlier.sort();
        for (_, path, bytes) in earlier {
            if all <= self.most_bytes {
                return;
            }
            remove(&path);
            all = all.saturating_sub(bytes);
        }
    }

    fn tasks(&self) -> Vec<TaskId> {
        names(&self.folder).into_iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// The current version of each task. One that cannot be read is said, left out, and so installed again.
    pub(super) fn current(&self) -> Vec<Published> {
        let mut versions: Vec<Published> =
            self.tasks().into_iter().filter_map(|task| self.published(task)).collect();
        versions.sort_by_key(|published| published.task);
        versions
    }

    /// Deletes all versions of a task. Returns the files that there were.
    pub(super) fn delete(&self, task: TaskId) -> Result<Vec<PathBuf>, FileError> {
        let folder = self.folder.join(task.to_string());
        // First what makes the others count.
        let mut paths = vec![folder.join(CURRENT)];
        for version in names(&folder) {
            paths.extend(FILES.map(|name| folder.join(&version).join(name)));
        }
        paths.retain(|path| path.exists());
        for path in &paths {
            fs::remove_file(path).map_err(FileError::io("delete", path))?;
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(FileError::io("delete", &folder))?;
        }
        Ok(paths)
    }

    /// Gives the version of a folder of an earlier Nightshift, which held one version of one task, a folder of its own. As
    /// often as it is asked to: a crash in the middle costs nothing.
    pub(super) fn adopt(&self, published: &Published) -> Result<(), DeviceStoreError> {
        let Published { task, version, .. } = published;
        let folder = self.folder.join(task.to_string()).join(version.to_string());
        files::create_folder(&folder)?;
        for name in FILES {
            let from = self.folder.join(name);
            if from.exists() {
                fs::rename(&from, folder.join(name)).map_err(FileError::io("move", &from))?;
            }
        }
        files::sync_folder(&folder)?;
        files::sync_folder(&self.folder)?;
        if FILES.iter().all(|name| folder.join(name).exists()) {
            self.set_current(*task, *version)?;
        }
        Ok(())
    }

    /// The trained parameters of a version of a task that have this hash.
    pub(super) fn adapter(&self, task: TaskId, adapter: Digest) -> Option<Vec<u8>> {
        let folder = self.folder.join(task.to_string());
        let versions = names(&folder).into_iter().filter(|name| name.parse::<u32>().is_ok());
        let mut read = versions.filter_map(|version| files::read(&folder.join(version).join(ADAPTER)).ok());
        read.find(|bytes| Digest::of(bytes) == adapter)
    }

    /// The base of the current version of a task.
    pub(super) fn base_of(&self, task: TaskId) -> Option<Digest> {
        #[derive(Deserialize)]
        struct OfBase {
            base: Digest,
        }
        let version = self.current_of(task)?;
        let path = self.folder.join(task.to_string()).join(version.to_string()).join(MANIFEST);
        serde_json::from_slice::<OfBase>(&files::read(&path).ok()?).ok().map(|manifest| manifest.base)
    }

    fn set_current(&self, task: TaskId, version: u32) -> Result<(), FileError> {
        let path = self.folder.join(task.to_string()).join(CURRENT);
        files::write(&path, version.to_string().as_bytes(), Audience::Owner)
    }

    fn current_of(&self, task: TaskId) -> Option<u32> {
        current_in(&self.folder.join(task.to_string()))
    }

    fn published(&self, task: TaskId) -> Option<Published> {
        let version = self.current_of(task)?;
        let path = self.folder.join(task.to_string()).join(version.to_string()).join(MANIFEST);
        let read = files::read(&path).map_err(|error| error.to_string());
        let parsed = read.and_then(|bytes| {
            serde_json::from_slice::<Manifest>(&bytes).map_err(|error| format!("{}: {error}", path.display()))
        });
        match parsed {
            Ok(Manifest { published }) if (published.task, published.version) == (task, version) => {
                Some(published)
            }
            Ok(_) => {
                tracing::warn!("{} is of another version; it is installed again", path.display());
                None
            }
            Err(error) => {
                tracing::warn!("an installed version cannot be read and is installed again: {error}");
                None
            }
        }
    }

    fn prune(&self, task: TaskId, kept: [Option<u32>; 2]) {
        let folder = self.folder.join(task.to_string());
        let others = names(&folder)
            .into_iter()
            .filter(|name| name.parse::<u32>().is_ok_and(|version| !kept.contains(&Some(version))));
        for name in others {
            remove(&folder.join(name));
        }
    }
}

fn remove(version: &Path) {
    if let Err(error) = fs::remove_dir_all(version) {
        tracing::warn!("{} cannot be deleted: {error}", version.display());
    }
}

/// What the files of a version take.
fn bytes_below(version: &Path) -> u64 {
    let bytes = |name: &&str| fs::metadata(version.join(name)).map_or(0, |file| file.len());
    FILES.iter().map(bytes).sum()
}

/// The folder of the version that counts of a task, or of the one task of which there is any: `None` where there is none,
/// and with all tasks where there are several to choose from.
pub(crate) fn current_folder(state_dir: &Path, task: Option<TaskId>) -> Result<Option<PathBuf>, Vec<TaskId>> {
    let folder = state_dir.join("installed");
    let mut tasks: Vec<TaskId> = names(&folder).into_iter().filter_map(|name| name.parse().ok()).collect();
    tasks.retain(|found| task.is_none_or(|task| *found == task));
    tasks.sort_unstable();
    let of = |task: &TaskId| {
        let folder = folder.join(task.to_string());
        current_in(&folder).map(|version| folder.join(version.to_string()))
    };
    let mut folders = tasks.iter().filter_map(of);
    match (folders.next(), folders.next()) {
        (_, Some(_)) => Err(tasks),
        (only, None) => Ok(only),
    }
}

fn current_in(task: &Path) -> Option<u32> {
    fs::read_to_string(task.join(CURRENT)).ok()?.trim().parse().ok()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    list.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use proto::adapter::{Factors, Folded, Method, Module, State};
    use proto::plan::Plan;

    use super::*;

    fn work(task: u8, version: u32) -> (Work, (AdapterSpec, Vec<f32>)) {
        let modules = vec![Module { name: "a".to_owned(), inputs: 3, outputs: 2 }];
        let factors = Factors::Seeded(Digest([4; 32]));
        let spec = AdapterSpec { method: Method::FrozenA, rank: 1, alpha: 1.0, factors, modules };
        let frozen = spec.seeded_factors(&Digest([4; 32]));
        let adapter = vec![0.5; spec.trained_len()];
        let state = State::at(&spec, version, frozen, Folded::default(), &adapter).unwrap();
        let digest = Digest::of(&vector_to_bytes(&adapter));
        let published = Published {
            task: TaskId([task; 16]),
            version,
            plan: Digest([2; 32]),
            adapter: digest,
            folded: None,
            clip_norm: 1.0,
        };
        let plan = Plan { adapter: spec, ..Plan::example() };
        let mechanism = Plan::example().mechanism().unwrap();
        let shipped = state.shipped(plan.shipped_rank()).unwrap();
        (
            Work { published, plan, mechanism, state, adapter, class: None, before: None, against: None },
            shipped,
        )
    }

    fn install(installed: &Installed, task: u8, version: u32) {
        let (work, shipped) = work(task, version);
        installed.install(&work, &shipped).unwrap();
    }

    fn versions(installed: &Installed) -> Vec<(u8, u32)> {
        installed.current().iter().map(|published| (published.task.0[0], published.version)).collect()
    }

    #[test]
    fn of_each_task_the_current_version_and_the_one_before_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let installed = Installed::below(folder.path(), DEFAULT_INSTALLED_MIB);
        assert_eq!(versions(&installed), []);
        for version in [0, 1, 4] {
            install(&installed, 1, version);
        }
        install(&installed, 2, 7);
        assert_eq!(versions(&installed), [(1, 4), (2, 7)]);
        let task = folder.path().join("installed").join(TaskId([1; 16]).to_string());
        let mut kept = names(&task);
        kept.sort();
        assert_eq!(kept, ["1", "4", "current"]);
        // The same again is nothing new, and what was before stays.
        install(&installed, 1, 4);
        assert!(task.join("1").exists() && task.join("4").exists());
        let only = |of| current_folder(folder.path(), of);
        assert_eq!(
            only(Some(TaskId([2; 16]))),
            Ok(Some(folder.path().join("installed").join(TaskId([2; 16]).to_string()).join("7")))
        );
        assert_eq!(only(None), Err(vec![TaskId([1; 16]), TaskId([2; 16])]));
        assert_eq!(only(Some(TaskId([3; 16]))), Ok(None));
        let gone = installed.delete(TaskId([1; 16])).unwrap();
        assert_eq!(gone.len(), 7);
        assert!(!task.exists());
        assert_eq!(versions(&installed), [(2, 7)]);
        assert!(installed.delete(TaskId([1; 16])).unwrap().is_empty());
    }

    #[test]
    fn versions_have_so_much_room_and_earlier_ones_make_it() {
        let folder = tempfile::tempdir().unwrap();
        let roomy = Installed::below(folder.path(), 1);
        for (task, version) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            install(&roomy, task, version);
        }
        let count =
            |task: u8| names(&folder.path().join("installed").join(TaskId([task; 16]).to_string())).len();
        assert_eq!((count(1), count(2)), (3, 3));
        let one = bytes_below(&folder.path().join("installed").join(TaskId([1; 16]).to_string()).join("1"));

        // Room for three versions: the first of those that are not current goes.
        let narrow = Installed { most_bytes: 3 * one + one / 2, ..roomy.clone() };
        install(&narrow, 2, 1);
        assert_eq!((count(1), count(2)), (2, 3));
        assert_eq!(versions(&narrow), [(1, 1), (2, 1)]);

        // None for what is current: the new one is refused, and nothing is changed.
        let closed = Installed { most_bytes: one, ..roomy };
        let (work, shipped) = work(3, 0);
        let refused = closed.install(&work, &shipped).unwrap_err().to_string();
        assert!(refused.contains("`installed_mib`") && refused.contains("forget TASK"), "{refused}");
        assert_eq!(versions(&closed), [(1, 1), (2, 1)]);
    }

    #[test]
    fn a_version_that_was_not_wholly_written_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let installed = Installed::below(folder.path(), DEFAULT_INSTALLED_MIB);
        install(&installed, 1, 1);
        let task = folder.path().join("installed").join(TaskId([1; 16]).to_string());
        // A crash before the last write.
        fs::create_dir(task.join("2")).unwrap();
        fs::write(task.join("2/adapter.f32"), [1]).unwrap();
        assert_eq!(versions(&installed), [(1, 1)]);
        fs::write(task.join("1").join(MANIFEST), "{").unwrap();
        assert_eq!(versions(&installed), []);
        install(&installed, 1, 2);
        assert_eq!(versions(&installed), [(1, 2)]);
    }

    #[test]
    fn a_folder_with_one_version_of_one_task_is_adopted_even_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let installed = Installed::below(folder.path(), DEFAULT_INSTALLED_MIB);
        install(&installed, 1, 3);
        let published = installed.current().remove(0);
        let old = folder.path().join("installed");
        let new = old.join(TaskId([1; 16]).to_string());
        for name in FILES {
            fs::rename(new.join("3").join(name), old.join(name)).unwrap();
        }
        fs::remove_dir_all(&new).unwrap();
        // As after a crash in the middle.
        fs::create_dir_all(new.join("3")).unwrap();
        fs::rename(old.join(MANIFEST), new.join("3").join(MANIFEST)).unwrap();
        assert_eq!(versions(&installed), []);
        for _ in 0..2 {
            installed.adopt(&published).unwrap();
            assert_eq!(installed.current(), std::slice::from_ref(&published));
        }
        assert!(FILES.iter().all(|name| !old.join(name).exists()));
    }
}
