//! A template, compiled, with its operators replaced by Python's ([`super::operators`]).
//!
//! The engine's own operators differ from Python's in what they accept (`for x in none`), in `Markup`, and in that some
//! of them do work which nothing pays for: they print, compare and repeat lists of any expanded size. They cannot be
//! overridden by name, so the instructions that the engine's compiler gives are rewritten, one by one. This needs the
//! engine's `unstable_machinery`, for which its version is pinned.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{self, CodeGenerator, Instruction, Instructions, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use super::NAME;
use super::limits::MAX_TAG_TOKENS;
use super::operators as op;

type Compiled<T> = Result<T, minijinja::Error>;

/// Filters that look at no more than the first level of what they are given, or count what they do.
const SHALLOW_FILTERS: [&str; 13] =
    ["tojson", "string", "join", "length", "count", "safe", "default", "d", "list", "items", "first", "last", "bool"];

/// Names after which a bracket opens a list and not a subscript.
const KEYWORDS: [&str; 13] =
    ["in", "and", "or", "not", "if", "elif", "else", "is", "set", "for", "with", "call", "recursive"];

/// Tells the engine to look a filter up by its name, not by a number in its cache.
const UNCACHED: u8 = !0;

/// The compiled template; it owns the source that the instructions borrow from.
pub(super) struct Program {
    // Before `source`, so that they are dropped first.
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
    _source: Arc<str>,
}

impl Program {
    pub(super) fn new(source: &str) -> Compiled<Program> {
        let source: Arc<str> = source.into();
        // SAFETY: the text is on the heap, is never changed, and lives as long as the program, which is the only owner
        // of what borrows it here: `instructions` is private and lent out only for the time of a borrow of `self`.
        let text: &'static str = unsafe { &*Arc::as_ptr(&source) };
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        screen(text, syntax.clone())?;
        let tree = machinery::parse(text, NAME, syntax)?;
        let mut generator = CodeGenerator::new(NAME, text);
        generator.compile_stmt(&tree);
        let (instructions, blocks) = generator.finish();
        Ok(Program { instructions: rewrite(&instructions, text)?, blocks, _source: source })
    }

    /// Renders with the environment's fuel.
    pub(super) fn render(&self, environment: &Environment, variables: Value) -> Compiled<String> {
        let mut text = String::new();
        let mut output = machinery::make_string_output(&mut text);
        machinery::eval(environment, &self.instructions, variables, &self.blocks, &mut output, AutoEscape::None)?;
        drop(output);
        Ok(text)
    }
}

/// Refuses sources that would keep the engine's compiler busy: it evaluates constant expressions, again for each part of
/// them, with its own operators and before there is any fuel.
fn screen(source: &str, syntax: SyntaxConfig) -> Compiled<()> {
    let (mut tokens, mut multiplies, mut has_list, mut after_operand) = (0, false, false, false);
    for token in machinery::tokenize(source, false, syntax) {
        let (token, span) = token?;
        tokens += 1;
        match token {
            Token::BlockStart | Token::VariableStart => (tokens, multiplies, has_list) = (0, false, false),
            Token::Mul => multiplies = true,
            // After an operand it is a subscript.
            Token::BracketOpen => has_list |= !after_operand,
            _ => {}
        }
        after_operand = match token {
            Token::Ident(name) => !KEYWORDS.contains(&name),
            Token::Str(_) | Token::String(_) | Token::ParenClose | Token::BracketClose | Token::BraceClose => true,
            _ => false,
        };
        let refuse = |what: &str| {
            let detail = format!("{what} (line {})", span.start_line);
            Err(minijinja::Error::new(ErrorKind::SyntaxError, detail))
        };
        if tokens > MAX_TAG_TOKENS {
            return refuse(&format!("a tag has more than {MAX_TAG_TOKENS} words and signs"));
        }
        if multiplies && has_list {
            return refuse("a list and a multiplication in one tag are not supported");
        }
    }
    Ok(())
}

/// Replaces the instructions and lets the jumps follow.
fn rewrite(old: &Instructions<'static>, source: &'static str) -> Compiled<Instructions<'static>> {
    let mut rewritten: Vec<Vec<Instruction<'static>>> = Vec::new();
    let mut starts: Vec<u32> = vec![0];
    let mut count = 0;
    let mut previous = None;
    while let Some(instruction) = old.get(rewritten.len() as u32) {
        let line = old.get_line(rewritten.len() as u32);
        let new = replacement(instruction, previous, line)?;
        count += new.len() as u32;
        starts.push(count);
        rewritten.push(new);
        previous = Some(instruction);
    }
    let mut program = Instructions::new(NAME, source);
    for (at, instructions) in rewritten.into_iter().enumerate() {
        let line = old.get_line(at as u32).and_then(|line| u16::try_from(line).ok()).unwrap_or_default();
        for mut instruction in instructions {
            if let Some(target) = jump_target(&mut instruction)
                && let Some(start) = starts.get(*target as usize)
            {
                *target = *start;
            }
            program.add_with_line(instruction, line);
        }
    }
    Ok(program)
}

/// The instruction that an instruction may go on with, other than the next one.
fn jump_target<'a>(instruction: &'a mut Instruction<'static>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// What takes the place of an instruction. A jump to it arrives at the first of them.
fn replacement(
    instruction: &Instruction<'static>,
    previous: Option<&Instruction<'static>>,
    line: Option<usize>,
) -> Compiled<Vec<Instruction<'static>>> {
    let call = |name: &'static str, arguments: u16| Instruction::ApplyFilter(name, Some(arguments), UNCACHED);
    let unsupported = |what: &str| {
        let at = line.map_or(String::new(), |line| format!(" (line {line})"));
        Err(minijinja::Error::new(ErrorKind::SyntaxError, format!("{what} is not supported{at}")))
    };
    let same = instruction.clone();
    Ok(match instruction {
        Instruction::Add => vec![call(op::ADD, 2)],
        Instruction::Mul => vec![call(op::MULTIPLY, 2)],
        Instruction::StringConcat => vec![call(op::CONCATENATE, 2)],
        Instruction::Eq => vec![call(op::EQUAL, 2)],
        Instruction::Ne => vec![call(op::UNEQUAL, 2)],
        Instruction::Lt => vec![call(op::LESS, 2)],
        Instruction::Lte => vec![call(op::LESS_OR_EQUAL, 2)],
        Instruction::Gt => vec![call(op::GREATER, 2)],
        Instruction::Gte => vec![call(op::GREATER_OR_EQUAL, 2)],
        Instruction::In => vec![call(op::IN, 2)],
        Instruction::CompareAndPreserve(_) => {
            vec![Instruction::Swap, call(op::CHECK, 1), Instruction::Swap, call(op::CHECK, 1), same]
        }
        Instruction::SetAttr(_) => vec![Instruction::Swap, call(op::STORE, 1), Instruction::Swap, same],
        Instruction::PushLoop(_) => vec![call(op::ITERATE, 1), same],
        Instruction::Slice => vec![same, call(op::MATERIALIZE, 1)],
        Instruction::GetItem if matches!(previous, Some(Instruction::LoadConst(_))) => vec![same],
        Instruction::GetItem => vec![call(op::KEY, 1), same],
        Instruction::BuildMap(pairs) if *pairs > 0 => match u16::try_from(pairs.saturating_mul(2)) {
            Ok(arguments) => vec![call(op::DICTIONARY, arguments)],
            Err(_) => return unsupported("a dictionary of that size"),
        },
        Instruction::ApplyFilter(name, ..) if SHALLOW_FILTERS.contains(name) => vec![same],
        Instruction::ApplyFilter(name, Some(arguments), _) if *arguments < u16::MAX => {
            vec![Instruction::LoadConst(Value::from(*name)), call(op::APPLY, arguments + 1)]
        }
        Instruction::ApplyFilter(..) => return unsupported("unpacking arguments for a filter"),
        Instruction::PerformTest(name, arguments, _) => match (op::of_test(name), arguments) {
            (Some(operator), Some(2)) => vec![call(operator, 2)],
            (Some(_), _) => return unsupported("a comparison test with that many arguments"),
            (None, _) => vec![same],
        },
        Instruction::CallMethod("changed", Some(2)) => vec![call(op::CHECK, 1), same],
        Instruction::CallMethod("changed", _) => return unsupported("changed() with that many arguments"),
        _ => vec![same],
    })
}
