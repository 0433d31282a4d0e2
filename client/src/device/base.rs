//! A base that a task needs and that is not here: it comes from the coordinator, beside whatever the device does.

use std::sync::Arc;

use session::LackingBase;
use tokio_util::sync::CancellationToken;

use super::base_fetch::{BaseFetch, Fetched, InVain};
use super::clock::now;
use super::run::Running;
use crate::error::Error;

/// How long what came as something else than the base is not asked for again: a day.
const ANOTHER_MILLIS: u64 = 24 * 3_600_000;

impl Running {
    /// Begins to fetch a base, where it is not coming yet, and not in vain.
    pub(super) fn lacks(&mut self, lacking: LackingBase) -> Result<(), Error> {
        let LackingBase { task, base } = lacking;
        let bases = self.store.bases();
        if bases.whole().contains(&base) {
            // It came, and the trainer cannot use it: more bytes would not help.
            let why = format!(
                "the base {base} came from the coordinator and cannot be trained on here; it is not fetched again while it \
                 is in {}",
                bases.path(base).display()
            );
            return self.comes_not(Error::NoBase(why));
        }
        if let Some(why) = self.store.base_in_vain(base, now())? {
            return self.comes_not(Error::NoBase(why));
        }
        if !self.bases.may_begin(base) {
            return Ok(());
        }
        self.store.needs_base(task, base)?;
        let named = self.store.in_words(task);
        self.live.note("fetches", &format!("the base {base} of task {named}"));
        let mut needed = self.store.needed_bases()?;
        needed.extend(self.bases.all());
        let fetch = BaseFetch {
            of: lacking,
            bases,
            needed,
            most_mib: self.policy.coordinator_bases_mib,
            transport: self.bases.transport(),
            seen: self.watching.subscribe(),
            live: Arc::clone(&self.live),
            once: self.when.once,
            stop: CancellationToken::new(),
            is_forgotten: Arc::default(),
        };
        self.bases.begin(fetch, self.store.lock());
        Ok(())
    }

    /// Takes what became of the bases that were coming.
    pub(super) fn take_bases(&mut self) -> Result<(), Error> {
        for (base, fetched) in self.bases.take_ended() {
            match fetched {
                Fetched::Whole => {
                    self.live.note("fetched", &format!("the base {base}"));
                    self.came = Some(base);
                }
                Fetched::Stopped => {}
                Fetched::InVain(InVain::Network(why)) => self.comes_not(Error::Conditions(why))?,
                Fetched::InVain(InVain::Refused(why)) => self.comes_not(Error::NoBase(why))?,
                Fetched::InVain(InVain::Another(why)) => {
                    let until = now().plus_millis(ANOTHER_MILLIS);
                    if let Err(error) = self.store.base_is_in_vain(base, until, &why) {
                        self.trouble(&format!("{error}; the base {base} is asked for again all the same"));
                    }
                    self.comes_not(Error::NoBase(why))?;
                }
            }
        }
        Ok(())
    }

    /// Says why a base does not come; whoever runs once ends with it.
    fn comes_not(&self, why: Error) -> Result<(), Error> {
        self.trouble(&why.to_string());
        if self.when.once { Err(why) } else { Ok(()) }
    }
}
