//! A base that a task needs and that is not here: it comes from the coordinator, part by part, while the device has nothing
//! else to do.

use proto::base::BaseFile;
use proto::ids::TaskId;
use proto::message::Rejection;
use session::LackingBase;

use super::coming_base::{ComingBase, Step, Trouble};
use super::run::Running;
use crate::store::FetchedBaseError;
use crate::transport::TransportError;

impl Running {
    /// Begins to fetch a base, where none is coming yet.
    pub(super) fn lacks(&mut self, lacking: LackingBase) {
        if self.coming.is_some() {
            return;
        }
        let task = self.store.in_words(lacking.task);
        self.live.note("fetches", &format!("the base {} of task {task}", lacking.base));
        self.coming = Some(ComingBase::new(lacking));
    }

    /// Fetches the next part of the base that is coming; never ends where none is, or where it may not be fetched now.
    pub(super) async fn next_of_base(&mut self) {
        let Some(coming) = self.coming.as_ref().filter(|_| self.watching.seen().may_transfer) else {
            return std::future::pending().await;
        };
        if let Some(rest) = coming.rests() {
            tokio::time::sleep(rest).await;
            return;
        }
        let step = coming.step(self.transport.clone(), self.store.bases(), self.store.lock()).await;
        if let Err(trouble) = step.and_then(|step| self.take(step)) {
            self.base_trouble(&trouble);
        }
        let progress = self.coming.as_ref().and_then(|coming| Some((coming.of.base, coming.progress()?)));
        self.live.fetches(progress.map(|(base, (there, total))| (base, there, total)));
    }

    /// The user left a task: what was coming for it is deleted.
    pub(super) fn forget_base_of(&mut self, task: TaskId) {
        let Some(coming) = self.coming.take_if(|coming| coming.of.task == task) else { return };
        if let Err(error) = self.store.bases().delete(coming.of.base) {
            self.trouble(&format!("what came of the base {} cannot be deleted: {error}", coming.of.base));
        }
        self.live.fetches(None);
    }

    fn take(&mut self, step: Step) -> Result<(), Trouble> {
        let (bases, needed) = (self.store.bases(), self.store.bases_of_versions());
        let Some(coming) = &mut self.coming else { return Ok(()) };
        let base = coming.of.base;
        match step {
            Step::Listed(files) => {
                let most_mib = self.policy.coordinator_bases_mib;
                let gone = bases.make_room((base, &files), &needed, most_mib)?;
                for gone in &gone {
                    self.live.note("deleted", &format!("the base {gone}, which no version here needs"));
                }
                // A trainer that held one of them must not be asked to train on it.
                if !gone.is_empty() {
                    self.live.leave();
                }
                let there = |file: BaseFile| bases.there(base, &file).map(|there| (file, there));
                coming.files = Some(files.into_iter().map(there).collect::<Result<_, _>>()?);
            }
            Step::Part { name, bytes } => {
                bases.append(base, &name, &bytes)?;
                let of_name = coming.files.iter_mut().flatten().find(|(file, _)| file.name == name);
                if let Some((_, there)) = of_name {
                    *there = there.saturating_add(bytes.len() as u64);
                }
                coming.goes_on();
            }
            Step::Whole => {
                self.live.note("fetched", &format!("the base {base}"));
                self.coming = None;
                self.came = Some(base);
            }
        }
        Ok(())
    }

    /// Says why a base does not come, and tries again later, where that may help.
    fn base_trouble(&mut self, trouble: &Trouble) {
        let Some(coming) = &mut self.coming else { return };
        let base = coming.of.base;
        let is_over = match trouble {
            Trouble::Transport(TransportError::Rejected(Rejection::UnknownArtifact))
            | Trouble::Kept(
                FetchedBaseError::NoRoom { .. }
                | FetchedBaseError::Another { .. }
                | FetchedBaseError::Read(_),
            )
            | Trouble::Length { .. } => true,
            Trouble::Kept(FetchedBaseError::DiskFull { .. } | FetchedBaseError::File(_))
            | Trouble::Transport(_)
            | Trouble::Thread(_) => false,
        };
        let why = match trouble {
            Trouble::Transport(TransportError::Rejected(Rejection::UnknownArtifact)) => format!(
                "the coordinator does not serve the base {base}; name where it is by `base` or `further_bases`"
            ),
            Trouble::Transport(_) | Trouble::Kept(_) | Trouble::Length { .. } | Trouble::Thread(_) => {
                format!("the base {base} does not come: {trouble}")
            }
        };
        // Whoever runs once does not wait.
        let why = if is_over || self.when.once {
            self.in_vain = self.when.once.then_some(base);
            // When the task is offered again, in hours, all of it is tried again.
            self.coming = None;
            why
        } else {
            format!("{why}; it is tried again in {} min", coming.put_off().as_secs() / 60)
        };
        self.trouble(&why);
    }
}
