//! The stack machine of the pickle protocols 2 to 5 (Python's `pickletools` documents every instruction).

use std::collections::HashMap;

use lxmert::Limits;

use super::globals::{Global, storage};
use super::{Id, MAX_RANK, Object, Pickle, Refusal};

/// How to raise the limit on objects.
const RAISE: &str = "raise the limit pickle_objects: --limit pickle_objects=N, Limits::pickle_objects";

/// The most containers that are open at a time.
const MAX_MARKS: usize = 1 << 10;

/// Runs the pickle at the start of `bytes`.
pub(in crate::source) fn load<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Pickle<'a>, Refusal> {
    let mut machine = Machine::new(bytes, limits.pickle_objects);
    loop {
        let at = machine.position;
        let code = machine.byte()?;
        if code == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { objects: machine.objects, root, len: machine.position });
        }
        machine
            .step(code)
            .map_err(|Refusal(reason)| Refusal(format!("{reason} (byte {at} of the pickle)")))?;
    }
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    objects: Vec<Object<'a>>,
    /// Objects and entries of containers so far.
    used: usize,
    stack: Vec<Id>,
    /// The heights of the stack at which containers were opened.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// The most objects, values on the stack, and entries of the memo.
    limit: usize,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], limit: usize) -> Self {
        let (objects, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Machine { bytes, position: 0, objects, used: 0, stack, marks, memo, limit }
    }

    pub fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id.0 as usize]
    }

    /// Makes an object.
    pub fn add(&mut self, object: Object<'a>) -> Result<Id, Refusal> {
        self.count(1)?;
        self.objects.push(object);
        Ok(Id(self.objects.len() as u32 - 1))
    }

    /// Takes note of objects or entries before memory is taken for more of them.
    pub fn count(&mut self, more: usize) -> Result<(), Refusal> {
        self.used += more;
        if self.used > self.limit {
            return Err(Refusal::new(format!("it has more than {} objects: {RAISE}", self.limit)));
        }
        Ok(())
    }

    /// An integer that counts something.
    pub fn size(&self, id: Id) -> Result<u64, Refusal> {
        match self.get(id) {
            Object::Int(size) => u64::try_from(*size).map_err(|_| Refusal::new(format!("a size is {size}"))),
            other => Err(Refusal::new(format!("a size is {}", other.kind()))),
        }
    }

    /// A tuple of such integers.
    pub fn sizes(&self, id: Id) -> Result<Vec<u64>, Refusal> {
        match self.get(id) {
            Object::Tuple(sizes) if sizes.len() <= MAX_RANK => {
                sizes.iter().map(|size| self.size(*size)).collect()
            }
            Object::Tuple(sizes) => Err(Refusal::new(format!("a tensor has {} axes", sizes.len()))),
            other => Err(Refusal::new(format!("a shape is {}", other.kind()))),
        }
    }

    /// The two parts of a list or tuple of two.
    pub fn pair(&self, id: Id) -> Result<(Id, Id), Refusal> {
        match self.get(id) {
            Object::List(parts) | Object::Tuple(parts) if parts.len() == 2 => Ok((parts[0], parts[1])),
            other => Err(Refusal::new(format!("an entry is {}, not a pair", other.kind()))),
        }
    }

    fn step(&mut self, code: u8) -> Result<(), Refusal> {
        match code {
            0x80 => self.protocol(),
            // A frame's length, which only matters to readers of streams.
            0x95 => self.take(8).map(drop),
            b'(' => self.mark(),
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)
            }
            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'J' => {
                let bytes = self.array()?;
                self.push(Object::Int(i32::from_le_bytes(bytes).into()))
            }
            b'K' => {
                let byte = self.byte()?;
                self.push(Object::Int(byte.into()))
            }
            b'M' => {
                let bytes = self.array()?;
                self.push(Object::Int(u16::from_le_bytes(bytes).into()))
            }
            0x8A => {
                let len = self.byte()?;
                self.long(len.into())
            }
            0x8B => {
                let len = self.u32()?;
                self.long(len.into())
            }
            b'G' => {
                self.take(8)?;
                self.push(Object::Float)
            }
            0x8C | b'U' => {
                let len = self.byte()?;
                self.text(len.into())
            }
            b'X' | b'T' => {
                let len = self.u32()?;
                self.text(len.into())
            }
            0x8D => {
                let len = u64::from_le_bytes(self.array()?);
                self.text(len)
            }
            b'C' => {
                let len = self.byte()?;
                self.skip_bytes(len.into())
            }
            b'B' => {
                let len = self.u32()?;
                self.skip_bytes(len.into())
            }
            0x8E => {
                let len = u64::from_le_bytes(self.array()?);
                self.skip_bytes(len)
            }
            b')' => self.push(Object::Tuple(Vec::new())),
            0x85 => self.short_tuple(1),
            0x86 => self.short_tuple(2),
            0x87 => self.short_tuple(3),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items))
            }
            b']' => self.push(Object::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)
            }
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                let entries = entries(&items)?;
                self.push(Object::Dict(entries))
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(items)
            }
            b'q' => {
                let slot = self.byte()?;
                self.put(slot.into())
            }
            b'r' => {
                let slot = self.u32()?;
                self.put(slot)
            }
            0x94 => self.put(self.memo.len() as u32),
            b'h' => {
                let slot = self.byte()?;
                self.recall(slot.into())
            }
            b'j' => {
                let slot = self.u32()?;
                self.recall(slot)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Global(Global::find(module, name)?))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Object::Str(module), Object::Str(name)) = (self.get(module), self.get(name)) else {
                    return Err(Refusal::new("it asks for a function by something that is no name"));
                };
                let global = Global::find(module, name)?;
                self.push(Object::Global(global))
            }
            b'R' => self.call(),
            b'Q' => {
                let id = self.pop()?;
                let storage = storage(self, id)?;
                self.push(Object::Storage(storage))
            }
            b'b' => self.build(),
            // INST names its class by itself.
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Err(Refusal::new(format!(
                    "it makes a {:?}, which no state dict holds",
                    format!("{module}.{name}")
                )))
            }
            other => {
                Err(Refusal::new(format!("the instruction {other:#04x} is none that a state dict needs")))
            }
        }
    }

    fn protocol(&mut self) -> Result<(), Refusal> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(Refusal::new(format!("it is of protocol {other}, not 2 to 5"))),
        }
    }

    fn call(&mut self) -> Result<(), Refusal> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Object::Global(function) = *self.get(function) else {
            return Err(Refusal::new(format!("it calls {}", self.get(function).kind())));
        };
        let arguments = match self.get(arguments) {
            Object::Tuple(arguments) if arguments.len() <= MAX_RANK => arguments.clone(),
            _ => return Err(Refusal::new("it calls a function with impossible arguments")),
        };
        let made = function.call(self, &arguments)?;
        self.push_id(made)
    }

    /// The attributes of an object: an OrderedDict that a module's `state_dict` made has the versions of the modules,
    /// which are of no interest.
    fn build(&mut self) -> Result<(), Refusal> {
        let (state, object) = (self.pop()?, self.top()?);
        match (self.get(object), self.get(state)) {
            (Object::Dict(_), Object::Dict(_)) => Ok(()),
            (object, _) => Err(Refusal::new(format!("it sets the inner state of {}", object.kind()))),
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), Refusal> {
        self.count(items.len())?;
        let list = self.top()?;
        match &mut self.objects[list.0 as usize] {
            Object::List(list) => {
                list.extend(items);
                Ok(())
            }
            other => Err(Refusal::new(format!("it appends to {}", other.kind()))),
        }
    }

    fn set(&mut self, items: Vec<Id>) -> Result<(), Refusal> {
        self.count(items.len())?;
        let dict = self.top()?;
        let entries = entries(&items)?;
        match &mut self.objects[dict.0 as usize] {
            Object::Dict(dict) => {
                dict.extend(entries);
                Ok(())
            }
            other => Err(Refusal::new(format!("it sets entries of {}", other.kind()))),
        }
    }

    fn short_tuple(&mut self, len: usize) -> Result<(), Refusal> {
        let mut items = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Object::Tuple(items))
    }

    fn put(&mut self, slot: u32) -> Result<(), Refusal> {
        let top = self.top()?;
        if self.memo.len() >= self.limit {
            return Err(Refusal::new(format!("it remembers more than {} objects: {RAISE}", self.limit)));
        }
        match self.memo.insert(slot, top) {
            None => Ok(()),
            Some(_) => Err(Refusal::new(format!("it remembers two objects under {slot}"))),
        }
    }

    fn recall(&mut self, slot: u32) -> Result<(), Refusal> {
        let id = self.memo.get(&slot).copied();
        self.push_id(
            id.ok_or_else(|| Refusal::new(format!("it recalls {slot}, which it does not remember")))?,
        )
    }

    fn mark(&mut self) -> Result<(), Refusal> {
        if self.marks.len() >= MAX_MARKS {
            return Err(Refusal::new(format!("it is nested more than {MAX_MARKS} deep")));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Refusal> {
        let mark = self.marks.pop().ok_or_else(|| Refusal::new("it closes what it did not open"))?;
        self.count(self.stack.len() - mark)?;
        Ok(self.stack.split_off(mark))
    }

    /// How high the stack has to stay until the innermost open container is closed.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, Refusal> {
        self.stack[self.floor()..].last().copied().ok_or_else(empty)
    }

    fn pop(&mut self) -> Result<Id, Refusal> {
        self.top()?;
        self.stack.pop().ok_or_else(empty)
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), Refusal> {
        let id = self.add(object)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), Refusal> {
        if self.stack.len() >= self.limit {
            return Err(Refusal::new(format!("it has more than {} values at hand: {RAISE}", self.limit)));
        }
        self.stack.push(id);
        Ok(())
    }

    /// A two's complement integer.
    fn long(&mut self, len: u64) -> Result<(), Refusal> {
        let bytes = self.take(len)?;
        if bytes.len() > size_of::<i64>() {
            return self.push(Object::Long(bytes));
        }
        let sign = if bytes.last().is_some_and(|last| *last >= 0x80) { 0xFF } else { 0 };
        let mut wide = [sign; size_of::<i64>()];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Object::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, len: u64) -> Result<(), Refusal> {
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| Refusal::new("a text is not UTF-8"))?;
        self.push(Object::Str(text))
    }

    fn skip_bytes(&mut self, len: u64) -> Result<(), Refusal> {
        self.take(len)?;
        self.push(Object::Bytes)
    }

    /// A text up to the end of its line.
    fn line(&mut self) -> Result<&'a str, Refusal> {
        let rest = &self.bytes[self.position..];
        let len = rest.iter().take(1000).position(|byte| *byte == b'\n');
        let len = len.ok_or_else(|| Refusal::new("a name has no end"))?;
        self.position += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| Refusal::new("a name is not UTF-8"))
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        Ok(self.take(N as u64)?.try_into().expect("as many bytes as asked for"))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Refusal> {
        let rest = &self.bytes[self.position..];
        if len > rest.len() as u64 {
            return Err(Refusal::new("it is cut short, or longer than any state dict's"));
        }
        self.position += len as usize;
        Ok(&rest[..len as usize])
    }
}

fn empty() -> Refusal {
    Refusal::new("it takes a value where it has none")
}

/// Keys and values by turns.
fn entries(items: &[Id]) -> Result<Vec<(Id, Id)>, Refusal> {
    let (pairs, rest) = items.as_chunks();
    if !rest.is_empty() {
        return Err(Refusal::new("an entry has a key and no value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}
