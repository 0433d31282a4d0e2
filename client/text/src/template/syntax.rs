//! What is looked at before a template is parsed and compiled: both go into themselves, and compute with constants.

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Macro, Stmt, UnaryOpKind};
use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind};

/// The longest template that is read; the longest that are published have some 20 KiB.
pub(super) const MOST_BYTES: usize = 256 << 10;

/// Words and signs between one pair of braces: each may be one level deeper in what is parsed.
const MOST_WORDS: usize = 1000;

/// Brackets within brackets.
const MOST_BRACKETS: usize = 50;

/// `elif` in all: each is a condition within the one before it.
const MOST_ELSE_IFS: usize = 300;

/// The longest text that a constant text and a constant number may make, such as a line of dashes.
const MOST_LINE_BYTES: usize = 256;

/// Fails for a text that is too long, or nested too deep, to be parsed on any stack.
pub(super) fn check_text(source: &str, syntax: SyntaxConfig) -> Result<(), Error> {
    if source.len() > MOST_BYTES {
        return Err(wrong(format!("it has {} bytes, at most {MOST_BYTES} are read", source.len())));
    }
    let (mut words, mut brackets, mut else_ifs) = (0, 0_usize, 0);
    for token in tokenize(source, false, syntax) {
        // What is no word of the language is told by the parser, which knows the line and reads no further.
        let Ok((token, _)) = token else { return Ok(()) };
        words += 1;
        if matches!(token, Token::VariableStart | Token::BlockStart | Token::TemplateData(_)) {
            (words, brackets) = (0, 0);
        } else if matches!(token, Token::BracketOpen | Token::BraceOpen | Token::ParenOpen) {
            brackets += 1;
        } else if matches!(token, Token::BracketClose | Token::BraceClose | Token::ParenClose) {
            brackets = brackets.saturating_sub(1);
        } else if matches!(token, Token::Ident("elif")) {
            else_ifs += 1;
        }
        for (count, most, what) in [
            (words, MOST_WORDS, "words and signs between one pair of braces"),
            (brackets, MOST_BRACKETS, "brackets within brackets"),
            (else_ifs, MOST_ELSE_IFS, "words `elif`"),
        ] {
            if count > most {
                return Err(wrong(format!("it has more than {most} {what}")));
            }
        }
    }
    Ok(())
}

/// Fails for a product of constants that are not numbers: it is computed while the template is compiled.
pub(super) fn check_tree(tree: &Stmt<'_>) -> Result<(), Error> {
    statement(tree)
}

fn wrong(reason: String) -> Error {
    Error::new(ErrorKind::SyntaxError, reason)
}

fn statements(list: &[Stmt<'_>]) -> Result<(), Error> {
    list.iter().try_for_each(statement)
}

fn statement(stmt: &Stmt<'_>) -> Result<(), Error> {
    match stmt {
        Stmt::Template(node) => statements(&node.children),
        Stmt::EmitExpr(node) => expression(&node.expr),
        Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => Ok(()),
        Stmt::ForLoop(node) => {
            expression(&node.iter)?;
            optional(node.filter_expr.as_ref())?;
            statements(&node.body)?;
            statements(&node.else_body)
        }
        Stmt::IfCond(node) => {
            expression(&node.expr)?;
            statements(&node.true_body)?;
            statements(&node.false_body)
        }
        Stmt::WithBlock(node) => {
            node.assignments.iter().try_for_each(|(_, value)| expression(value))?;
            statements(&node.body)
        }
        Stmt::Set(node) => expression(&node.expr),
        Stmt::SetBlock(node) => {
            optional(node.filter.as_ref())?;
            statements(&node.body)
        }
        Stmt::AutoEscape(node) => {
            expression(&node.enabled)?;
            statements(&node.body)
        }
        Stmt::FilterBlock(node) => {
            expression(&node.filter)?;
            statements(&node.body)
        }
        Stmt::Block(node) => statements(&node.body),
        Stmt::Import(node) => expression(&node.expr),
        Stmt::FromImport(node) => expression(&node.expr),
        Stmt::Extends(node) => expression(&node.name),
        Stmt::Include(node) => expression(&node.name),
        Stmt::Macro(node) => declaration(node),
        Stmt::CallBlock(node) => {
            call(&node.call)?;
            declaration(&node.macro_decl)
        }
        Stmt::Do(node) => call(&node.call),
    }
}

fn declaration(node: &Macro<'_>) -> Result<(), Error> {
    node.defaults.iter().try_for_each(expression)?;
    statements(&node.body)
}

fn call(node: &Call<'_>) -> Result<(), Error> {
    expression(&node.expr)?;
    arguments(&node.args)
}

fn arguments(list: &[CallArg<'_>]) -> Result<(), Error> {
    list.iter().try_for_each(|argument| match argument {
        CallArg::Pos(value) | CallArg::Kwarg(_, value) => expression(value),
        CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
            Err(wrong("a call with `*` or `**` before an argument is not supported".to_owned()))
        }
    })
}

fn optional(expr: Option<&Expr<'_>>) -> Result<(), Error> {
    expr.map_or(Ok(()), expression)
}

fn expression(expr: &Expr<'_>) -> Result<(), Error> {
    match expr {
        Expr::Var(_) | Expr::Const(_) => Ok(()),
        Expr::Slice(node) => {
            expression(&node.expr)?;
            [&node.start, &node.stop, &node.step].into_iter().try_for_each(|part| optional(part.as_ref()))
        }
        Expr::UnaryOp(node) => expression(&node.expr),
        Expr::BinOp(node) => {
            let (left, right) = (&node.left, &node.right);
            if matches!(node.op, BinOpKind::Mul)
                && is_constant(left)
                && is_constant(right)
                && !(is_number(left) && is_number(right))
                && !(is_short(left, right) || is_short(right, left))
            {
                let reason = "a text or a list times a number is not supported where both are constants";
                return Err(wrong(reason.to_owned()));
            }
            expression(left)?;
            expression(right)
        }
        Expr::Compare(node) => {
            expression(&node.expr)?;
            node.ops.iter().try_for_each(|op| expression(&op.expr))
        }
        Expr::IfExpr(node) => {
            expression(&node.test_expr)?;
            expression(&node.true_expr)?;
            optional(node.false_expr.as_ref())
        }
        Expr::Filter(node) => {
            optional(node.expr.as_ref())?;
            arguments(&node.args)
        }
        Expr::Test(node) => {
            expression(&node.expr)?;
            arguments(&node.args)
        }
        Expr::GetAttr(node) => expression(&node.expr),
        Expr::GetItem(node) => {
            expression(&node.expr)?;
            expression(&node.subscript_expr)
        }
        Expr::Call(node) => call(node),
        Expr::List(node) => node.items.iter().try_for_each(expression),
        Expr::Tuple(node) => node.items.iter().try_for_each(expression),
        Expr::Map(node) => node.keys.iter().chain(&node.values).try_for_each(expression),
    }
}

/// Whether the compiler may compute it: it names no variable and calls nothing.
fn is_constant(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::Const(_) | Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => true,
        Expr::UnaryOp(node) => is_constant(&node.expr),
        Expr::BinOp(node) => is_constant(&node.left) && is_constant(&node.right),
        Expr::Compare(node) => is_constant(&node.expr),
        Expr::Var(_)
        | Expr::Slice(_)
        | Expr::IfExpr(_)
        | Expr::Filter(_)
        | Expr::Test(_)
        | Expr::GetAttr(_)
        | Expr::GetItem(_)
        | Expr::Call(_) => false,
    }
}

/// Whether it is a text so many times as makes a line.
fn is_short(text: &Expr<'_>, times: &Expr<'_>) -> bool {
    let (Expr::Const(text), Expr::Const(times)) = (text, times) else { return false };
    let times = times.value.as_i64().and_then(|times| usize::try_from(times).ok());
    let len = text.value.as_str().map(str::len).zip(times).map(|(len, times)| len.saturating_mul(times));
    len.is_some_and(|len| len <= MOST_LINE_BYTES)
}

/// Whether a constant can only be a number.
fn is_number(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::Const(node) => node.value.kind() == ValueKind::Number,
        Expr::UnaryOp(node) => matches!(node.op, UnaryOpKind::Neg) && is_number(&node.expr),
        Expr::BinOp(node) => {
            let computes = matches!(
                node.op,
                BinOpKind::Add
                    | BinOpKind::Sub
                    | BinOpKind::Mul
                    | BinOpKind::Div
                    | BinOpKind::FloorDiv
                    | BinOpKind::Rem
                    | BinOpKind::Pow
            );
            computes && is_number(&node.left) && is_number(&node.right)
        }
        Expr::Var(_)
        | Expr::Slice(_)
        | Expr::Compare(_)
        | Expr::IfExpr(_)
        | Expr::Filter(_)
        | Expr::Test(_)
        | Expr::GetAttr(_)
        | Expr::GetItem(_)
        | Expr::Call(_)
        | Expr::List(_)
        | Expr::Tuple(_)
        | Expr::Map(_) => false,
    }
}
