//! `nightshift-agent data check`: what would be learned of a text, before anything is.

use std::path::{Path, PathBuf};

use clap::Args;
use proto::counted::counted;
use proto::shown::shown;
use serde::Serialize;
use shell::cli::Format;
use text::{Corpus, LeftOut, Notes, Reading, Run, TextError, UserText, samples};

use super::local::{TextArgs, fetch};
use super::{Common, Failure, failed, path, print};
use crate::config::{Config, source};
use engine::Base;
use engine::base::Tokens;

/// So many characters of a run of tokens are shown.
const MOST_SHOWN: usize = 2000;

/// What to look at.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    text: TextArgs,
    /// Files and folders, instead of the configuration's `data`
    #[arg(value_name = "PATH", value_parser = path())]
    paths: Vec<PathBuf>,
    /// Show the first documents as they would be read, and which tokens of them are learned
    #[arg(long, default_value_t = 0, value_name = "N")]
    show: usize,
}

/// What `data check` prints as JSON: counts, and of the text only what was asked to be shown.
#[derive(Debug, Serialize)]
struct Checked {
    files: u64,
    documents: u64,
    with_roles: u64,
    duplicates: u64,
    surplus: u64,
    secret_looking: u64,
    skipped_lines: u64,
    unread_files: u64,
    /// Why files are not read, and how many.
    unread: Vec<(String, u64)>,
    /// What each file is taken for.
    taken: Vec<Taken>,
    /// What is left out of files that are read.
    skipped: Vec<Skipped>,
    /// What the base makes of it; nothing where no base was named.
    tokens: Option<TokenCounts>,
    /// The first documents, where they are to be shown.
    shown: Vec<Sample>,
}

/// What one file is taken for.
#[derive(Debug, Serialize)]
struct Taken {
    file: String,
    /// Forms of documents, and how many there are.
    forms: Vec<(&'static str, u64)>,
}

/// Lines of a file that are left out.
#[derive(Debug, Serialize)]
struct Skipped {
    file: String,
    reason: String,
    lines: u64,
    first: u64,
}

/// What a base makes of a text.
#[derive(Debug, Serialize)]
struct TokenCounts {
    learned: u64,
    given: u64,
    /// Why conversations are left out, and how many.
    left_out: Vec<(String, u64)>,
    /// Documents that spell control tokens and are read as letters.
    spelled_control: u64,
    /// Documents that spell control tokens of other bases.
    other_control: u64,
    /// Conversations of which earlier thoughts are not learned.
    without_thoughts: u64,
}

/// A document as it would be read.
#[derive(Debug, Serialize)]
struct Sample {
    /// Why it is left out, if it is.
    left_out: Option<String>,
    runs: Vec<Shown>,
}

/// Tokens that follow each other and are all learned or all given.
#[derive(Debug, Serialize)]
struct Shown {
    learned: bool,
    tokens: u64,
    text: String,
}

/// The base whose tokens are counted: the one that was named, or the one that the agent would train, if it is there.
pub(super) fn base<'a>(common: &Common, config: &'a Config) -> Option<&'a Path> {
    let is_named = common.base.is_some() || common.config.is_some();
    (is_named || config.base.exists()).then_some(config.base.as_path())
}

/// Reads the text as a training would and says what each file is taken for, how much of it is learned with the base, and
/// what is left out; writes nothing. Ends with 3 where nothing is left.
pub(super) fn check(
    config: &Config,
    base: Option<&Path>,
    args: &CheckArgs,
    format: Format,
) -> Result<(), Failure> {
    let unusable = |error: TextError| failed(3)(error.into());
    let data = if args.paths.is_empty() { &config.data } else { &args.paths };
    if data.is_empty() {
        let why =
            "no text: name files or folders after `data check`, by --data or by `data` in the configuration";
        return Err(failed(3)(anyhow::anyhow!(why)));
    }
    if args.show > 0 && base.is_none() {
        let why = "--show needs a base, whose tokens are shown: name one by --base";
        return Err(failed(3)(anyhow::anyhow!(why)));
    }
    let tokens = base.map(tokens).transpose().map_err(failed(3))?;
    let text = UserText::read(data, &args.text.reading(config)).map_err(unusable)?;
    let (mut counts, mut notes, mut nothing) = (None, Notes::default(), None);
    match tokens.as_ref().map(|tokens| Corpus::of_tokens(tokens, &text)) {
        Some(Ok(corpus)) => (counts, notes) = (Some(corpus.learned_and_given()), corpus.notes().clone()),
        Some(Err(TextError::NoText { reading, notes: of_all })) => {
            (counts, notes) = (Some((0, 0)), (*of_all).clone());
            nothing = Some(TextError::NoText { reading, notes: of_all });
        }
        Some(Err(error)) => return Err(unusable(error)),
        None if text.documents().len() == 0 => {
            let (reading, notes) = (Box::new(text.reading().clone()), Box::default());
            nothing = Some(TextError::NoText { reading, notes });
        }
        None => {}
    }
    let first = match &tokens {
        Some(tokens) => samples(tokens, &text, args.show).map_err(unusable)?,
        None => Vec::new(),
    };
    let checked = Checked::new(text.reading(), counts, &notes, first);
    print(format, &checked, || checked.text(text.reading(), &notes))?;
    nothing.map_or(Ok(()), |error| Err(unusable(error)))
}

/// What a base says of texts; its weights are not read.
fn tokens(base: &Path) -> anyhow::Result<Tokens> {
    Ok(Base::open_tokens(&fetch(&source(base)?)?)?)
}

fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy()).to_string()
}

impl Checked {
    fn new(
        reading: &Reading,
        tokens: Option<(u64, u64)>,
        notes: &Notes,
        first: Vec<Result<Vec<Run>, LeftOut>>,
    ) -> Self {
        let taken = reading.taken.iter().map(|taken| Taken {
            file: shown_path(&taken.file),
            forms: taken.forms.iter().map(|(form, count)| (form.name(), *count)).collect(),
        });
        let skipped = reading.skipped.iter().map(|skipped| Skipped {
            file: shown_path(&skipped.file),
            reason: skipped.reason.to_string(),
            lines: skipped.count,
            first: skipped.first,
        });
        let left_out = notes.left_out.iter().map(|(why, count)| (why.to_string(), *count));
        Self {
            files: reading.files,
            documents: reading.documents,
            with_roles: reading.with_roles,
            duplicates: reading.duplicates,
            surplus: reading.surplus,
            secret_looking: reading.secret_looking(),
            skipped_lines: reading.skipped_lines(),
            unread_files: reading.unread_files(),
            unread: reading
                .unread
                .iter()
                .map(|(reason, unread)| (reason.to_string(), unread.count))
                .collect(),
            taken: taken.collect(),
            skipped: skipped.collect(),
            tokens: tokens.map(|(learned, given)| TokenCounts {
                learned,
                given,
                left_out: left_out.collect(),
                spelled_control: notes.spelled_control,
                other_control: notes.other_control,
                without_thoughts: notes.without_thoughts,
            }),
            shown: first.into_iter().map(Sample::of).collect(),
        }
    }

    /// What a person reads.
    fn text(&self, reading: &Reading, notes: &Notes) -> String {
        let mut text = reading.to_string();
        for Taken { file, forms } in &self.taken {
            let forms: Vec<String> = forms.iter().map(|(form, count)| format!("{count} of {form}")).collect();
            let forms = if forms.is_empty() { "nothing".to_owned() } else { forms.join(", ") };
            text = text + "\n" + file + ": taken for " + &forms;
        }
        match &self.tokens {
            Some(TokenCounts { learned, given, .. }) => {
                text = format!(
                    "{text}\n{} learned, {} given",
                    counted(*learned, "token is", "tokens are"),
                    counted(*given, "is", "are")
                );
            }
            None => text += "\ntokens are not counted: no base was named (--base)",
        }
        notes.lines().into_iter().for_each(|line| text = format!("{text}\n{line}"));
        for (place, sample) in self.shown.iter().enumerate() {
            text = format!("{text}\n\ndocument {}{}", place + 1, sample.text());
        }
        text
    }
}

impl Sample {
    fn of(sample: Result<Vec<Run>, LeftOut>) -> Self {
        match sample {
            Ok(runs) => {
                let shown = |Run { learned, tokens, text }| Shown { learned, tokens, text: cut(text) };
                Self { left_out: None, runs: runs.into_iter().map(shown).collect() }
            }
            Err(why) => Self { left_out: Some(why.to_string()), runs: Vec::new() },
        }
    }

    /// Its lines, each with what becomes of it before it.
    fn text(&self) -> String {
        if let Some(why) = &self.left_out {
            return format!(" is left out: one that {why}");
        }
        let sum = |learned: bool| -> u64 {
            self.runs.iter().filter(|run| run.learned == learned).map(|run| run.tokens).sum()
        };
        let mut text = format!(": {} learned, {} given", counted(sum(true), "token", "tokens"), sum(false));
        for run in &self.runs {
            let mark = if run.learned { "learned" } else { "given  " };
            for line in run.text.split_inclusive('\n') {
                // What ends a line is a token too, or a part of one.
                let line = if line.ends_with('\n') { line.replace('\n', "⏎") } else { line.to_owned() };
                text = format!("{text}\n  {mark} | {line}");
            }
        }
        text
    }
}

/// A run's text, its end left out where it is long.
fn cut(text: String) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((at, _)) => format!("{}… ({} more characters)", &text[..at], text[at..].chars().count()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_sample_says_whether_it_is_learned() {
        let run = |learned: bool, tokens: u64, text: &str| Run { learned, tokens, text: text.to_owned() };
        let sample = Sample::of(Ok(vec![run(false, 3, "<s>user\nHi\n"), run(true, 2, "Bye\u{1b}[2J</s>")]));
        let expected = ": 2 tokens learned, 3 given\n  given   | <s>user⏎\n  given   | Hi⏎\n  learned | Bye\u{1b}[2J</s>";
        assert_eq!(sample.text(), expected);
        let left_out = Sample::of(Err(LeftOut::Calls)).text();
        assert!(left_out.starts_with(" is left out: one that the base's chat template"), "{left_out}");
        let long = Sample::of(Ok(vec![run(true, 9, &"ö".repeat(MOST_SHOWN + 7))])).text();
        assert!(long.ends_with("ö… (7 more characters)"), "{long}");
    }
}
