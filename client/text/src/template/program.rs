//! A template compiled, with what charges a rendering's budget between its instructions.
//!
//! The engine bounds how many instructions run, but not how much one of them makes: `~` doubles a text each time. So
//! each instruction that may make or read much is followed, or preceded, by a filter of ours that no template can
//! spell, and what a template writes as it stands becomes a value that is printed like all others.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::syntax;
use crate::template::functions::{
    BEFORE_PRODUCT, BEFORE_SLICE, BEFORE_SUM, BEFORE_TEXT, INDEXED, KEPT, LOOPED, MADE, READ,
};

/// A constant that is so short costs nothing to compare with.
const SMALL_BYTES: usize = 256;

/// What is run.
pub(super) struct Program<'a> {
    pub(super) main: Instructions<'a>,
    pub(super) blocks: BTreeMap<&'a str, Instructions<'a>>,
}

impl<'a> Program<'a> {
    /// Compiles a template; fails for what is no template, and for one that is too long or nested too deep.
    pub(super) fn compile(name: &'a str, source: &'a str, config: SyntaxConfig) -> Result<Self, Error> {
        syntax::check_text(source, config.clone())?;
        let tree = parse(source, name, config)?;
        syntax::check_tree(&tree)?;
        let mut generator = CodeGenerator::new(name, source);
        generator.compile_stmt(&tree);
        let (main, blocks) = generator.finish();
        let blocks = blocks.into_iter().map(|(block, instructions)| Ok((block, charged(&instructions)?)));
        Ok(Self { main: charged(&main)?, blocks: blocks.collect::<Result<_, Error>>()? })
    }
}

/// The same instructions with ours among them.
fn charged<'a>(old: &Instructions<'a>) -> Result<Instructions<'a>, Error> {
    let all: Vec<&Instruction<'a>> = (0..).map_while(|at| old.get(at)).collect();
    let targets: BTreeSet<u32> = all.iter().filter_map(|instruction| target(instruction)).collect();
    let mut new = Instructions::new(old.name(), old.source());
    // Where each of the old ones begins among the new ones.
    let (mut places, mut end) = (Vec::with_capacity(all.len()), 0);
    for (at, instruction) in (0_u32..).zip(&all) {
        // The constant on the top of the stack, if nothing else can be there.
        let constant = match at.checked_sub(1).and_then(|before| old.get(before)) {
            Some(Instruction::LoadConst(value)) if !targets.contains(&at) => Some(value),
            Some(_) | None => None,
        };
        let line = old.get_line(at).and_then(|line| u16::try_from(line).ok()).unwrap_or_default();
        places.push(end);
        for part in around(instruction, constant)? {
            end = new.add_with_line(part, line) + 1;
        }
    }
    for at in 0..end {
        let to = new.get(at).and_then(target).map(|to| places.get(to as usize).copied().unwrap_or(end));
        if let (Some(instruction), Some(to)) = (new.get_mut(at), to) {
            lead(instruction, to);
        }
    }
    Ok(new)
}

/// Where an instruction may go on but after itself.
fn target(instruction: &Instruction<'_>) -> Option<u32> {
    if let Instruction::Jump(to)
    | Instruction::JumpIfFalse(to)
    | Instruction::JumpIfFalseOrPop(to)
    | Instruction::JumpIfTrueOrPop(to)
    | Instruction::Iterate(to)
    | Instruction::BuildMacro(_, to, _) = instruction
    {
        Some(*to)
    } else {
        None
    }
}

/// Changes where that is.
fn lead(instruction: &mut Instruction<'_>, place: u32) {
    if let Instruction::Jump(to)
    | Instruction::JumpIfFalse(to)
    | Instruction::JumpIfFalseOrPop(to)
    | Instruction::JumpIfTrueOrPop(to)
    | Instruction::Iterate(to)
    | Instruction::BuildMacro(_, to, _) = instruction
    {
        *to = place;
    }
}

/// A filter of ours; it is looked up by its name each time.
fn ours(name: &'static str, arguments: u16) -> Instruction<'static> {
    Instruction::ApplyFilter(name, Some(arguments), !0)
}

/// An instruction and what belongs before and after it.
fn around<'a>(
    instruction: &Instruction<'a>,
    constant: Option<&Value>,
) -> Result<Vec<Instruction<'a>>, Error> {
    let same = instruction.clone();
    Ok(match instruction {
        Instruction::EmitRaw(text) => {
            let text = Value::from_safe_string((*text).to_owned());
            vec![Instruction::LoadConst(text), Instruction::Emit]
        }
        // What is added to a number is one.
        Instruction::Add if constant.is_some_and(Value::is_number) => vec![same],
        Instruction::Add => vec![ours(BEFORE_SUM, 2), Instruction::UnpackList(2), same, ours(MADE, 1)],
        Instruction::StringConcat => {
            vec![ours(BEFORE_TEXT, 2), Instruction::UnpackList(2), same, ours(MADE, 1)]
        }
        Instruction::Mul => vec![ours(BEFORE_PRODUCT, 2), Instruction::UnpackList(2), same, ours(MADE, 1)],
        Instruction::Slice => vec![ours(BEFORE_SLICE, 4), Instruction::UnpackList(4), same, ours(MADE, 1)],
        Instruction::BuildList(_) | Instruction::BuildTuple(_) | Instruction::BuildMap(_) => {
            vec![same, ours(KEPT, 1)]
        }
        Instruction::SetAttr(_) => vec![Instruction::Swap, ours(KEPT, 1), Instruction::Swap, same],
        Instruction::Eq
        | Instruction::Ne
        | Instruction::Lt
        | Instruction::Lte
        | Instruction::Gt
        | Instruction::Gte
        | Instruction::CompareAndPreserve(_) => match constant.filter(|value| is_small(value)) {
            Some(_) => vec![same],
            None => vec![ours(READ, 1), same],
        },
        // What is looked for is read as well as what it is looked for in.
        Instruction::In if constant.is_some_and(is_small) => vec![same],
        Instruction::In => {
            vec![ours(READ, 1), Instruction::Swap, ours(READ, 1), Instruction::Swap, same]
        }
        Instruction::GetItem => match constant.filter(|value| value.as_str().is_some() && is_small(value)) {
            Some(_) => vec![same],
            None => {
                vec![ours(READ, 1), Instruction::Swap, ours(INDEXED, 1), Instruction::Swap, same]
            }
        },
        Instruction::CallMethod("changed", Some(count)) if *count > 2 => {
            let reason = "`changed` of more than one value is not supported";
            return Err(Error::new(ErrorKind::SyntaxError, reason));
        }
        Instruction::PushLoop(_) => vec![ours(LOOPED, 1), same],
        Instruction::CallMethod("changed", _) => vec![ours(READ, 1), same],
        Instruction::UnpackLists(_) | Instruction::MergeKwargs(_) => {
            let reason = "a call with `*` or `**` before an argument is not supported";
            return Err(Error::new(ErrorKind::SyntaxError, reason));
        }
        // These make and read little, print, or call what is ours.
        Instruction::StoreLocal(_)
        | Instruction::Lookup(_)
        | Instruction::GetAttr(_)
        | Instruction::LoadConst(_)
        | Instruction::BuildKwargs(_)
        | Instruction::UnpackList(_)
        | Instruction::Sub
        | Instruction::Div
        | Instruction::IntDiv
        | Instruction::Rem
        | Instruction::Pow
        | Instruction::Neg
        | Instruction::Not
        | Instruction::ApplyFilter(..)
        | Instruction::PerformTest(..)
        | Instruction::Emit
        | Instruction::PushWith
        | Instruction::Iterate(_)
        | Instruction::PushDidNotIterate
        | Instruction::PopFrame
        | Instruction::PopLoopFrame
        | Instruction::Jump(_)
        | Instruction::JumpIfFalse(_)
        | Instruction::JumpIfFalseOrPop(_)
        | Instruction::JumpIfTrueOrPop(_)
        | Instruction::PushAutoEscape
        | Instruction::PopAutoEscape
        | Instruction::BeginCapture(_)
        | Instruction::EndCapture
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(_)
        | Instruction::DupTop
        | Instruction::DiscardTop
        | Instruction::FastRecurse
        | Instruction::Swap
        | Instruction::BuildMacro(..)
        | Instruction::Return
        | Instruction::IsUndefined
        | Instruction::Enclose(_)
        | Instruction::GetClosure
        // There is no other template to take these from.
        | Instruction::FastSuper
        | Instruction::CallBlock(_)
        | Instruction::LoadBlocks
        | Instruction::Include(_)
        | Instruction::ExportLocals => vec![same],
    })
}

/// Whether to compare with a constant costs next to nothing.
fn is_small(value: &Value) -> bool {
    match value.as_str() {
        Some(text) => text.len() <= SMALL_BYTES,
        None => value.is_number() || value.is_none() || value.kind() == ValueKind::Bool,
    }
}
