//! What was read, in numbers: nothing here holds text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use proto::shown::shown;

use crate::SecretKind;

/// So many files are named for each reason; the others are counted.
const MOST_NAMED: usize = 8;

/// What came of a reading. Its `Display` is a list for the user, with file names; [`Reading::summary`] has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Files that were read to their end.
    pub files: u64,
    /// Documents in them that can be used.
    pub documents: u64,
    /// Those of them of which only a part is learned.
    pub with_roles: u64,
    /// Documents that were there before, up to white space.
    pub duplicates: u64,
    /// Documents that were left out because there is more text than is used at once.
    pub surplus: u64,
    /// What looked like a secret and was left out: lines of plain text, whole documents with roles.
    pub secrets: BTreeMap<SecretKind, u64>,
    /// Lines and objects that were left out, by file and reason.
    pub skipped: Vec<Skipped>,
    /// What each file that was read was taken for, in the order of reading.
    pub taken: Vec<Taken>,
    /// Files that were not read, by reason.
    pub unread: BTreeMap<UnreadReason, Unread>,
}

/// Lines of one file that were left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub reason: SkipReason,
    /// How many.
    pub count: u64,
    /// The number of the first: of a line, of an object in a list, or of a row below a table's head; the first of all
    /// is 1.
    pub first: u64,
}

/// In which form documents are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A text without rows, cut at its paragraphs; all of it is learned.
    Paragraphs,
    /// Rows of a `text`; all of it is learned.
    Text,
    /// Rows of turns; what the assistant says is learned.
    Turns,
    /// Rows of a prompt and its completion, which is learned.
    Completion,
    /// Rows of an instruction and its answer, which is learned.
    Instruction,
    /// Rows of a question and its answer under other names; the answer is learned.
    Question,
}

impl Form {
    /// What a document in this form is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paragraphs => "paragraphs",
            Self::Text => "text",
            Self::Turns => "turns",
            Self::Completion => "prompt and completion",
            Self::Instruction => "instruction and answer",
            Self::Question => "question and answer",
        }
    }
}

/// What one file was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The file.
    pub file: PathBuf,
    /// Documents in it by their form, before any was left out as a duplicate, a secret or surplus; pieces of text in a
    /// file of paragraphs. Empty where there was none.
    pub forms: BTreeMap<Form, u64>,
}

/// Why a line was left out; says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SkipReason {
    /// Bytes that are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Longer than is read in one piece.
    #[error("longer than 16 MiB")]
    TooLong,
    /// A conversation, or a prompt with its completion, that is longer than is learned in one piece.
    #[error("a document with roles of more than 4 MiB")]
    LongDocument,
    /// Text that is no JSON.
    #[error("not JSON")]
    NotJson,
    /// A row of a table that does not have its columns.
    #[error("not a row of as many cells as the first line names")]
    NotARow,
    /// JSON with more lists and objects within each other than are read.
    #[error("JSON nested deeper than 128 levels")]
    Deep,
    /// A cell of a table that never ends.
    #[error("a quote that is not closed; all below it is in one cell")]
    OpenQuote,
    /// A row of a list beside the one that is for training.
    #[error("in a list beside `train`, which alone is read")]
    OtherPart,
    /// A row that the hub's viewer did not give in full.
    #[error("cut off by the hub's viewer (`truncated_cells`)")]
    CutOff,
    /// A key that says two things.
    #[error("a key that is there twice, with two values")]
    Twice,
    /// All values of a column under its name, where each row should have its own.
    #[error("columns in place of rows; pandas writes rows by `to_json(OUT, orient='records', lines=True)`")]
    Columns,
    /// JSON that is neither an object nor a list of turns.
    #[error("neither an object nor a list of turns")]
    NoObject,
    /// An object in none of the forms that are known.
    #[error(
        "no `text`, `messages`, `conversations`, `prompt` and `completion`, `instruction` and `output`, or `question` and `answer`"
    )]
    NoText,
    /// One half of a pair.
    #[error("`{key}` without `{missing}`")]
    Without {
        /// What is there.
        key: &'static str,
        /// What belongs to it.
        missing: &'static str,
    },
    /// What should be turns is something else.
    #[error("`{key}` is not a list of turns")]
    NotTurns {
        /// Where it is.
        key: &'static str,
    },
    /// What should be turns is a text of something else, such as what Python prints.
    #[error("`{key}` is a text that is not the JSON of a list of turns (Python's `json.dumps` writes it)")]
    TextOfTurns {
        /// Where it is.
        key: &'static str,
    },
    /// A turn without its conversation.
    #[error("one turn alone; the turns of a conversation belong in one list, such as `messages`")]
    SingleTurn,
    /// A turn that does not say who speaks.
    #[error("a turn without `role` (or `from`)")]
    NoRole,
    /// A turn that does not say what is said.
    #[error("a turn without `content` (or `value`)")]
    NoContent,
    /// The model would not answer.
    #[error("a turn with a `refusal`, which no chat template writes")]
    Refusal,
    /// A turn that is no answer but something else, by its channel.
    #[error("a turn of a `channel` other than `final`")]
    Channel,
    /// More than one answer, or question.
    #[error("several answers or questions in one list, of which none is simply learned")]
    Several,
    /// What the question chooses from stands beside it.
    #[error("`choices` or `options` beside the question, which would be asked without them")]
    Choices,
    /// A part that should be text is something else.
    #[error("a part that is not text")]
    NotAllText,
    /// A turn of somebody who is not known.
    #[error("a role other than system, user, assistant and tool")]
    UnknownRole,
    /// A call of a tool that cannot be read.
    #[error("tool calls that are not in the form of `tool_calls`")]
    UnknownCall,
    /// A description of tools that cannot be read.
    #[error("`tools` that are not a list of functions")]
    UnknownTools,
    /// A turn that is learned in part or more than once, or says two things of itself.
    #[error("a turn whose `weight`, `train`, `loss` or the like is neither all nor nothing")]
    UnknownWeight,
    /// The row says in a way that cannot be followed how much of it is learned.
    #[error("a row whose `weight`, `loss_mask` or the like is neither all nor nothing")]
    RowWeight,
    /// A turn is to be learned that the assistant does not say.
    #[error("a turn of another than the assistant that is to be learned")]
    TeachesOthers,
    /// The row says of itself that it is not learned.
    #[error("marked as not to be learned")]
    NotToBeLearned,
    /// The row and its first turn set the conversation up in two ways.
    #[error("a `system` that is another than the first turn's")]
    TwoSystems,
    /// The row changes the chat template in ways that are not known.
    #[error("`chat_template_kwargs` or `documents`, which are not given to the chat template")]
    TemplateKeys,
    /// Of two answers, which is better: that is not learned.
    #[error(
        "a better and a worse answer (`chosen` and `rejected` or the like), of which neither is simply learned"
    )]
    Preference,
    /// A text without a single visible character.
    #[error("an empty text")]
    Empty,
    /// A conversation in which the assistant says nothing that is to be learned, or an empty completion.
    #[error("nothing to learn from: no words of the assistant")]
    NothingToLearn,
}

/// Files that were not read for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub named: Vec<PathBuf>,
}

/// Why a file was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum UnreadReason {
    /// By its name not of a kind that is read.
    #[error(
        "not .jsonl, .ndjson, .json, .csv, .tsv, .txt, .text, .md or .markdown, alone or as .gz; name the file itself to have it read"
    )]
    OtherKind,
    /// A link: what it leads to was not named by the user.
    #[error("a link; name what it leads to, to have that read")]
    Link,
    /// A socket, a pipe or a device.
    #[error("neither a file nor a folder")]
    NotAFile,
    /// A table in columns, which is not read.
    #[error(
        "a Parquet file; write it as JSON lines first, as Python does by `pandas.read_parquet(IN).to_json(OUT, orient='records', lines=True)`"
    )]
    Parquet,
    /// Packed by a program whose files are not read.
    #[error("packed; unpack it first (of packed files only .gz is read)")]
    Packed,
    /// What git-lfs puts in the place of a file that was not fetched.
    #[error("a pointer of git-lfs and not the file itself; `git lfs pull` in its folder fetches the file")]
    LfsPointer,
    /// A table whose first line names no column that is known.
    #[error(
        "a table without a column that is read; its first line names the columns, as rows of JSON name their keys"
    )]
    NoColumns,
    /// Text in two bytes a letter.
    #[error("UTF-16 text; save it as UTF-8")]
    Utf16,
    /// Pages with their layout, which are not read.
    #[error("a PDF or RTF document; save its text as .txt")]
    Laid,
    /// Its first bytes are no UTF-8 text.
    #[error("not UTF-8 text")]
    NotText,
    /// JSON that breaks off or goes wrong; nothing of it is used.
    #[error("not JSON from line {line}, column {column} on; nothing of it is used")]
    NotJson {
        /// The line where reading stopped.
        line: usize,
        /// The column.
        column: usize,
    },
    /// JSON of which some letter is no UTF-8; nothing of it is used.
    #[error("not UTF-8 text from line {line}, column {column} on; nothing of it is used")]
    NotUtf8 {
        /// The line where reading stopped.
        line: usize,
        /// The column.
        column: usize,
    },
    /// JSON with more lists and objects within each other than are read; nothing of it is used.
    #[error("JSON nested deeper than 128 levels at line {line}, column {column}; nothing of it is used")]
    Deep {
        /// The line where reading stopped.
        line: usize,
        /// The column.
        column: usize,
    },
    /// The system refused.
    #[error("{0}")]
    Refused(std::io::ErrorKind),
}

impl Reading {
    pub(super) fn skip(&mut self, file: &Path, number: u64, reason: SkipReason) {
        // The entries of one file stand together at the end, one for each reason.
        let known = self.skipped.iter_mut().rev().take_while(|entry| entry.file == file);
        match known.into_iter().find(|entry| entry.reason == reason) {
            Some(entry) => entry.count += 1,
            None => self.skipped.push(Skipped { file: file.to_owned(), reason, count: 1, first: number }),
        }
    }

    /// The file that is read next.
    pub(super) fn begin(&mut self, file: &Path) {
        self.taken.push(Taken { file: file.to_owned(), forms: BTreeMap::new() });
    }

    /// A document in the file that is read.
    pub(super) fn take(&mut self, form: Form) {
        if let Some(taken) = self.taken.last_mut() {
            *taken.forms.entry(form).or_default() += 1;
        }
    }

    pub(super) fn leave(&mut self, file: PathBuf, reason: UnreadReason) {
        let unread = self.unread.entry(reason).or_default();
        unread.count += 1;
        if unread.named.len() < MOST_NAMED {
            unread.named.push(file);
        }
    }

    /// Lines and objects that were left out, for whatever reason but a secret.
    pub fn skipped_lines(&self) -> u64 {
        self.skipped.iter().map(|entry| entry.count).sum()
    }

    /// Files that were not read.
    pub fn unread_files(&self) -> u64 {
        self.unread.values().map(|unread| unread.count).sum()
    }

    /// Lines, or documents with roles, that looked like secrets and were left out.
    pub fn secret_looking(&self) -> u64 {
        self.secrets.values().sum()
    }

    /// One line: how much was read and left out, with the reasons and without names.
    pub fn summary(&self) -> String {
        let mut reasons: BTreeMap<SkipReason, u64> = BTreeMap::new();
        for entry in &self.skipped {
            *reasons.entry(entry.reason).or_default() += entry.count;
        }
        let mut parts = vec![
            counted(self.files, "file", "read"),
            counted(self.documents, "document", &format!("({} with roles)", self.with_roles)),
        ];
        parts.extend((self.duplicates > 0).then(|| counted(self.duplicates, "duplicate", "left out")));
        parts.extend(
            (self.surplus > 0).then(|| counted(self.surplus, "document", "more than are used at once")),
        );
        parts.extend(
            reasons.iter().map(|(reason, lines)| counted(*lines, "line", &format!("skipped ({reason})"))),
        );
        let secrets = self.secrets.iter();
        parts.extend(
            secrets.map(|(kind, lines)| format!("{} like {kind}", counted(*lines, "line", "left out"))),
        );
        let unread = self.unread.iter();
        parts.extend(unread.map(|(why, unread)| counted(unread.count, "file", &format!("not read ({why})"))));
        parts.join(", ")
    }
}

fn counted(count: u64, noun: &str, what: &str) -> String {
    format!("{count} {noun}{} {what}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brief = Self { skipped: Vec::new(), unread: BTreeMap::new(), ..self.clone() };
        f.write_str(&brief.summary())?;
        for Skipped { file, reason, count, first } in &self.skipped {
            let lines = counted(*count, "line", "skipped");
            write!(f, "\n{}: {lines}, the first is {first}: {reason}", shown(&file.to_string_lossy()))?;
        }
        for (reason, unread) in &self.unread {
            for file in &unread.named {
                write!(f, "\n{}: not read: {reason}", shown(&file.to_string_lossy()))?;
            }
            let others = unread.count - unread.named.len() as u64;
            if others > 0 {
                write!(f, "\n{}: {reason}", counted(others, "more file", "not read"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_files_and_a_summary_does_not() {
        let mut reading =
            Reading { files: 2, documents: 5, with_roles: 1, duplicates: 1, ..Reading::default() };
        for (file, line, reason) in [
            ("a.jsonl", 3, SkipReason::NotJson),
            ("a.jsonl", 4, SkipReason::Empty),
            ("a.jsonl", 9, SkipReason::NotJson),
            ("b.jsonl", 1, SkipReason::NotJson),
        ] {
            reading.skip(Path::new(file), line, reason);
        }
        for i in 0..10 {
            reading.leave(PathBuf::from(format!("{i}.png")), UnreadReason::Link);
        }
        reading.secrets.insert(SecretKind::PaymentCard, 2);
        assert_eq!((reading.skipped_lines(), reading.unread_files(), reading.secret_looking()), (4, 10, 2));
        let list = reading.to_string();
        let mut lines = list.lines();
        assert_eq!(
            lines.next(),
            Some(
                "2 files read, 5 documents (1 with roles), 1 duplicate left out, 2 lines left out like a payment card"
            )
        );
        assert_eq!(lines.next(), Some("a.jsonl: 2 lines skipped, the first is 3: not JSON"));
        assert_eq!(lines.next(), Some("a.jsonl: 1 line skipped, the first is 4: an empty text"));
        assert_eq!(lines.next(), Some("b.jsonl: 1 line skipped, the first is 1: not JSON"));
        assert!(lines.next().unwrap().starts_with("0.png: not read: a link"));
        assert!(lines.last().unwrap().starts_with("2 more files not read: a link"));
        let summary = reading.summary();
        assert!(!summary.contains("jsonl:") && !summary.contains("png"), "{summary}");
        assert!(summary.contains("3 lines skipped (not JSON), 1 line skipped (an empty text)"), "{summary}");
        assert!(summary.ends_with("10 files not read (a link; name what it leads to, to have that read)"));
    }
}
