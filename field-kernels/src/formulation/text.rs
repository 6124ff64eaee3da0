//! Programs as GLSL: a named value is a statement, any other stands in the expression that uses it.

use super::program::{Node, Op, Program, Struct, Type, Value};
use std::collections::HashMap;
use std::fmt::Write;

const LINE: usize = 120;

impl Type {
    fn glsl(self) -> &'static str {
        match self {
            Type::I32 => "int",
            Type::U32 => "uint",
            Type::I64 => "int64_t",
            Type::U64 => "uint64_t",
            Type::F64 => "double",
        }
    }

    fn declaration(self) -> &'static str {
        // What is exact must not be rewritten: no contraction, no reassociation.
        if self == Type::F64 { "precise double" } else { self.glsl() }
    }

    fn literal(self, value: i128) -> String {
        match self {
            Type::I32 => {
                assert!(value > i128::from(i32::MIN), "GLSL has no literal for the smallest int");
                format!("{value}")
            }
            Type::U32 => format!("0x{value:x}u"),
            Type::I64 => format!("{value}l"),
            Type::U64 => format!("0x{value:x}ul"),
            Type::F64 => format!("{value}.0lf"),
        }
    }
}

/// How tightly an expression binds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    /// Shifts and logic: in parentheses within anything.
    Loose,
    Sum,
    Product,
    Tight,
}

struct Printer<'a> {
    program: &'a Program,
    names: Vec<Option<String>>,
    /// The value that each variable holds at this point.
    held: HashMap<String, Value>,
}

/// `prose` as a comment of lines that are not too long.
pub(super) fn comment(prose: &str) -> String {
    let mut text = String::new();
    for paragraph in prose.split("\n\n") {
        if !text.is_empty() {
            text.push_str("//\n");
        }
        let mut line = String::from("//");
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > LINE {
                let _ = writeln!(text, "{line}");
                line = String::from("//");
            }
            let _ = write!(line, " {word}");
        }
        let _ = writeln!(text, "{line}");
    }
    text
}

impl Struct {
    pub(super) fn glsl(self) -> String {
        format!("struct {} {{ {} {}[{}]; }};\n", self.name, self.element.glsl(), self.member, self.len)
    }
}

impl Program {
    /// The function's name and parameters, as GLSL declares them.
    pub(super) fn signature(&self) -> String {
        let parameters: Vec<String> = self.arguments.iter().map(|(name, of)| format!("{} {name}", of.name)).collect();
        format!("{} {}({})", self.result.name, self.name, parameters.join(", "))
    }

    /// The whole function, prose first.
    pub(super) fn glsl(&self) -> String {
        let uses = self.uses();
        let names = self.nodes.iter().zip(&uses).enumerate().map(|(index, (node, &uses))| {
            let inline =
                matches!(node.op, Op::Input { .. } | Op::Constant(_) | Op::OpaqueZero | Op::Known { .. }) || uses <= 1;
            node.name.clone().or_else(|| (!inline).then(|| format!("v{index}")))
        });
        let mut printer = Printer { program: self, names: names.collect(), held: HashMap::new() };
        let mut text = comment(&format!("{}\n\n{}.", self.prose, self.counts()));
        let _ = writeln!(text, "{} {{", self.signature());
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(name) = printer.names[index].clone() else { continue };
            if let Some(note) = &node.note {
                let _ = writeln!(text, "    // {note}");
            }
            let expression = printer.made(Value(index)).0;
            match printer.held.insert(name.clone(), Value(index)) {
                None => {
                    let _ = writeln!(text, "    {} {name} = {expression};", node.ty.declaration());
                }
                Some(before) => {
                    assert_eq!(self.nodes[before.0].ty, node.ty, "the variable {name} is of another type");
                    let _ = writeln!(text, "    {name} = {expression};");
                }
            }
        }
        let Struct { name, member, .. } = self.result;
        let _ = writeln!(text, "    {name} r;");
        for (index, &output) in self.outputs.iter().enumerate() {
            let _ = writeln!(text, "    r.{member}[{index}] = {};", printer.used(output).0);
        }
        text.push_str(if self.reduce_once { "    return fe_reduce_once(r);\n}\n" } else { "    return r;\n}\n" });
        text
    }
}

impl Printer<'_> {
    /// The value where it is used: its variable, or what makes it.
    fn used(&self, x: Value) -> (String, Binding) {
        match &self.names[x.0] {
            None => self.made(x),
            Some(name) => {
                assert_eq!(self.held.get(name), Some(&x), "{name} no longer holds the value that is used");
                (name.clone(), Binding::Tight)
            }
        }
    }

    fn within(&self, x: Value, at_least: Binding) -> String {
        let (text, binding) = self.used(x);
        if binding < at_least { format!("({text})") } else { text }
    }

    fn bare(&self, x: Value) -> String {
        self.used(x).0
    }

    /// A factor of a wide product, in the type of the product.
    fn widened(&self, x: Value, ty: Type) -> String {
        match self.program.nodes[x.0].op {
            Op::Constant(value) => ty.literal(value),
            _ => format!("{}({})", ty.glsl(), self.bare(x)),
        }
    }

    /// The expression that makes the value.
    fn made(&self, x: Value) -> (String, Binding) {
        let node = &self.program.nodes[x.0];
        let sum = |x, sign, y| {
            (format!("{} {sign} {}", self.within(x, Binding::Sum), self.within(y, Binding::Product)), Binding::Sum)
        };
        let loose = |x, sign, y: String| (format!("{} {sign} {y}", self.within(x, Binding::Tight)), Binding::Loose);
        match node.op {
            Op::Input { argument, index } => {
                let (name, of) = self.program.arguments[argument];
                (format!("{name}.{}[{index}]", of.member), Binding::Tight)
            }
            Op::Constant(value) => (node.ty.literal(value), if value < 0 { Binding::Product } else { Binding::Tight }),
            Op::OpaqueZero => ("OPAQUE_ZERO".into(), Binding::Tight),
            Op::Add(x, y) => match self.program.nodes[y.0] {
                Node { op: Op::Constant(value), ty, .. } if value < 0 => {
                    (format!("{} - {}", self.within(x, Binding::Sum), ty.literal(-value)), Binding::Sum)
                }
                _ => sum(x, '+', y),
            },
            Op::Sub(x, y) => sum(x, '-', y),
            Op::Mul(x, y) => {
                let (x, y) = (self.within(x, Binding::Product), self.within(y, Binding::Tight));
                (format!("{x} * {y}"), Binding::Product)
            }
            Op::WideAdd(x, y, addend) => {
                let signed = self.program.nodes[x.0].ty == Type::I32;
                let ty = if signed { Type::I64 } else { Type::U64 };
                let mut product = format!("{} * {}", self.widened(x, ty), self.widened(y, ty));
                if ty != node.ty {
                    product = format!("{}({product})", node.ty.glsl());
                }
                match addend {
                    None => (product, Binding::Product),
                    Some(z) => (format!("{} + {product}", self.within(z, Binding::Sum)), Binding::Sum),
                }
            }
            Op::Fma(x, y, z) | Op::FmaRounded(x, y, z, _) => {
                (format!("fma({}, {}, {})", self.bare(x), self.bare(y), self.bare(z)), Binding::Tight)
            }
            Op::Shl(x, by) => loose(x, "<<", by.to_string()),
            Op::Shr(x, by) => loose(x, ">>", by.to_string()),
            Op::And(x, y) => loose(x, "&", self.within(y, Binding::Tight)),
            Op::Or(x, y) => loose(x, "|", self.within(y, Binding::Tight)),
            Op::Convert(x) => (format!("{}({})", node.ty.glsl(), self.bare(x)), Binding::Tight),
            Op::Bits(x) => (format!("doubleBitsToUint64({})", self.bare(x)), Binding::Tight),
            Op::Biased(x, None) => (format!("packDouble2x32(uvec2({}, 0x43300000u))", self.bare(x)), Binding::Tight),
            Op::Biased(x, Some(above)) => {
                // A constant that the compiler does not see keeps this one operation on three operands.
                let above = format!("{} | (0x43300000u + uint(OPAQUE_ZERO))", self.within(above, Binding::Tight));
                (format!("packDouble2x32(uvec2({}, {above}))", self.bare(x)), Binding::Tight)
            }
            Op::Known { value, .. } => self.used(value),
        }
    }
}
