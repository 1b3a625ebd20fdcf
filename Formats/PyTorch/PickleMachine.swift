import Base
import Tensors

/// A stack machine for pickles (Python, `pickletools`; protocols 0 to 5) that builds data and nothing else.
///
/// Globals outside of ``PickleGlobal`` are refused by name where they are named, before anything is done with them; there
/// is no import, no call and no attribute. Opcodes that create objects of classes (`INST`, `OBJ`, `NEWOBJ_EX`, `EXT`) and
/// out-of-band buffers are refused. Work is linear in the bytes; objects, memo and stack have limits.
struct PickleMachine {
  /// Bounds on what one pickle may build.
  static let objectLimit = 1 << 18
  static let memoLimit = 1 << 19
  static let stackLimit = 1 << 18

  private(set) var reader: ByteReader
  private(set) var objects = PickleObjects()
  /// Names that were refused, in an audit; nil where the first one is an error.
  private(set) var refused: [(name: String, offset: Int)]?

  private let stringLimit: Int
  /// Bytes of all strings that may still be built.
  private var textBudget: Int
  private var stack: [PickleValue] = []
  private var memo: [PickleValue] = []
  /// The offset of the opcode that is carried out.
  private var position = 0
  /// Elements copied from one container to another so far.
  private var copiedCount = 0

  /// A machine that reads at the position of `reader`.
  ///
  /// With `listsRefused` refused names are gathered in ``refused`` instead of ending the run.
  init(
    _ reader: ByteReader, stringLimit: Int = 16 << 20, textLimit: Int = 1 << 30, listsRefused lists: Bool = false
  ) {
    self.reader = reader
    self.stringLimit = stringLimit
    textBudget = textLimit
    refused = lists ? [] : nil
  }

  /// The bytes of a range that a value names.
  func bytes(_ range: Range<Int>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: reader.bytes[range])
  }

  private func failure(_ message: String, kind: CompileError.Kind = .input) -> CompileError {
    CompileError(kind, message, subject: .init(file: reader.file, offset: reader.base + position))
  }

  /// Runs one pickle up to its `STOP` and gives what it leaves. Another one may follow; objects of earlier ones stay.
  mutating func run() throws -> PickleValue {
    stack.removeAll(keepingCapacity: true)
    memo.removeAll(keepingCapacity: true)
    while true {
      position = reader.offset
      let code = try reader.u8()
      if code == UInt8(ascii: ".") {
        let value = try pop("the result")
        guard stack.isEmpty else { throw failure("\(stack.count) values are left on the stack of the pickle") }
        return value
      }
      try step(code)
      guard stack.count <= Self.stackLimit else {
        throw failure("the stack of the pickle has more than \(Self.stackLimit) values")
      }
      guard objects.count <= Self.objectLimit else {
        throw failure("the pickle builds more than \(Self.objectLimit) objects")
      }
    }
  }

  // MARK: - Stack and memo

  private mutating func push(_ value: PickleValue) { stack.append(value) }

  private mutating func pop(_ what: @autoclosure () -> String = "an operand") throws -> PickleValue {
    guard let value = stack.popLast() else { throw failure("the pickle lacks \(what())") }
    if case .mark = value { throw failure("the pickle has a mark in the place of \(what())") }
    return value
  }

  /// What lies above the last mark, which goes away.
  private mutating func popToMark() throws -> [PickleValue] {
    guard
      let mark = stack.lastIndex(where: {
        if case .mark = $0 { return true }
        return false
      })
    else { throw failure("the pickle lacks a mark") }
    let operands = Array(stack[(mark + 1)...])
    stack.removeSubrange(mark...)
    return operands
  }

  private mutating func remember(_ key: Int?) throws {
    guard let value = stack.last else { throw failure("the pickle has nothing to remember") }
    if case .mark = value { throw failure("the pickle remembers a mark") }
    let key = key ?? memo.count
    // Picklers number what they remember in order.
    guard key <= memo.count, key < Self.memoLimit else {
      throw failure("memo key \(key) after \(memo.count) remembered values")
    }
    if key == memo.count { memo.append(value) } else { memo[key] = value }
  }

  private mutating func recall(_ key: Int) throws {
    guard memo.indices.contains(key) else { throw failure("the pickle recalls the unknown memo key \(key)") }
    push(memo[key])
  }

  // MARK: - Arguments of opcodes

  /// Text up to the end of the line.
  private mutating func line() throws -> String {
    let start = reader.offset
    let rest = reader.bytes[start...]
    guard let end = rest.prefix(65536).firstIndex(of: 0x0A) else { throw failure("a line of the pickle does not end") }
    let text = try reader.string(end - start, "a line of the pickle")
    try reader.skip(1)
    return text
  }

  private mutating func lineInteger() throws -> Int {
    var text = try line()
    if text.hasSuffix("L") { text.removeLast() }
    guard let number = Int(text) else { throw failure("'\(text.prefix(40))' is no integer of 64 bits") }
    return number
  }

  private mutating func length(_ width: Int) throws -> Int {
    let count: UInt64 =
      switch width {
      case 1: UInt64(try reader.u8())
      case 4: UInt64(try reader.u32())
      default: try reader.u64()
      }
    guard count <= UInt64(reader.remaining) else {
      throw failure("a length of \(count), but \(reader.remaining) bytes are left")
    }
    return Int(count)
  }

  private mutating func text(_ width: Int) throws -> PickleValue {
    let count = try length(width)
    guard count <= stringLimit else { throw failure("a string of \(count) bytes, at most \(stringLimit) are allowed") }
    textBudget -= count
    guard textBudget >= 0 else { throw failure("the pickle has too much text") }
    return .string(try reader.string(count, "a string of the pickle"))
  }

  private mutating func data(_ width: Int) throws -> PickleValue {
    let count = try length(width)
    let start = reader.offset
    try reader.skip(count)
    return .bytes(start..<start + count)
  }

  private mutating func long(_ width: Int) throws -> PickleValue {
    let count = try length(width)
    let start = reader.offset
    let bytes = try reader.bytes(count)
    guard count <= 8 else { return .longInteger(start..<start + count) }
    var number: UInt64 = (bytes.last ?? 0) & 0x80 != 0 ? .max : 0
    for byte in bytes.reversed() { number = number << 8 | UInt64(byte) }
    return .integer(Int(truncatingIfNeeded: number))
  }

  // MARK: - Opcodes

  private mutating func step(_ code: UInt8) throws {
    switch code {
    case 0x80:
      let version = try reader.u8()
      guard version <= 5 else {
        throw failure("pickle protocol \(version) is not supported, only 0 to 5", kind: .unsupported)
      }
    case 0x95: _ = try length(8)
    case UInt8(ascii: "("): push(.mark)
    case UInt8(ascii: "0"):
      guard stack.popLast() != nil else { throw failure("the pickle removes a value from an empty stack") }
    case UInt8(ascii: "1"): _ = try popToMark()
    case UInt8(ascii: "2"):
      let value = try pop()
      push(value)
      push(value)
    case UInt8(ascii: "p"): try remember(try lineInteger())
    case UInt8(ascii: "q"): try remember(Int(try reader.u8()))
    case UInt8(ascii: "r"): try remember(Int(try reader.u32()))
    case 0x94: try remember(nil)
    case UInt8(ascii: "g"): try recall(try lineInteger())
    case UInt8(ascii: "h"): try recall(Int(try reader.u8()))
    case UInt8(ascii: "j"): try recall(Int(try reader.u32()))
    case UInt8(ascii: "c"):
      let module = try line()
      push(try global(module, try line()))
    case 0x93:
      let name = try pop("the name of a global"), module = try pop("the module of a global")
      guard case .string(let name) = name, case .string(let module) = module else {
        throw failure("a global is named by \(module.kindDescription) and \(name.kindDescription)")
      }
      push(try global(module, name))
    case UInt8(ascii: "i"):
      let module = try line()
      _ = try popToMark()
      push(try refuse("\(module).\(try line())"))
    case UInt8(ascii: "R"), 0x81:
      let arguments = try pop("the arguments of a call"), function = try pop("what is to be called")
      push(try call(function, arguments))
    case UInt8(ascii: "b"): try build()
    case UInt8(ascii: "Q"): push(try persistent(try pop("a persistent id")))
    case UInt8(ascii: "P"): throw failure("a persistent id that is text is not supported", kind: .unsupported)
    default:
      if try pushScalar(code) { return }
      if try collect(code) { return }
      let known = "o\u{82}\u{83}\u{84}\u{92}\u{97}\u{98}".unicodeScalars.contains { $0.value == UInt32(code) }
      let number = "0x" + String(code, radix: 16)
      throw failure(
        known
          ? "the pickle uses the opcode \(number), which makes objects of any class or comes from outside"
          : "the pickle has the unknown opcode \(number)")
    }
  }

  /// Opcodes that push a number or text; false for others.
  private mutating func pushScalar(_ code: UInt8) throws -> Bool {
    switch code {
    case UInt8(ascii: "N"): push(.none)
    case 0x88: push(.bool(true))
    case 0x89: push(.bool(false))
    case UInt8(ascii: "I"):
      let text = try line()
      if text == "01" || text == "00" {
        push(.bool(text == "01"))
      } else {
        guard let number = Int(text) else { throw failure("'\(text.prefix(40))' is no integer of 64 bits") }
        push(.integer(number))
      }
    case UInt8(ascii: "L"): push(.integer(try lineInteger()))
    case UInt8(ascii: "J"): push(.integer(Int(try reader.i32())))
    case UInt8(ascii: "K"): push(.integer(Int(try reader.u8())))
    case UInt8(ascii: "M"): push(.integer(Int(try reader.u16())))
    case 0x8A: push(try long(1))
    case 0x8B: push(try long(4))
    case UInt8(ascii: "F"):
      let text = try line()
      guard let number = Double(text) else { throw failure("'\(text.prefix(40))' is no number") }
      push(.float(number))
    case UInt8(ascii: "G"): push(.float(Double(bitPattern: try reader.u64().byteSwapped)))
    case UInt8(ascii: "S"):
      let text = try line()
      guard text.utf8.count >= 2, let quote = text.first, quote == "'" || quote == "\"", text.last == quote,
        !text.contains("\\")
      else { throw failure("a string of the pickle is no plain text in quotes") }
      push(.string(String(text.dropFirst().dropLast())))
    case UInt8(ascii: "V"):
      let text = try line()
      guard !text.contains("\\") else { throw failure("a string of the pickle has escapes") }
      push(.string(text))
    case UInt8(ascii: "T"), UInt8(ascii: "X"): push(try text(4))
    case UInt8(ascii: "U"), 0x8C: push(try text(1))
    case 0x8D: push(try text(8))
    case UInt8(ascii: "B"): push(try data(4))
    case UInt8(ascii: "C"): push(try data(1))
    case 0x8E, 0x96: push(try data(8))
    default: return false
    }
    return true
  }

  /// Opcodes about tuples, lists, dictionaries and sets; false for others.
  private mutating func collect(_ code: UInt8) throws -> Bool {
    switch code {
    case UInt8(ascii: ")"): push(objects.addTuple([]))
    case UInt8(ascii: "t"): push(objects.addTuple(try popToMark()))
    case 0x85, 0x86, 0x87:
      let count = Int(code) - 0x84
      var operands: [PickleValue] = []
      for _ in 0..<count { operands.append(try pop()) }
      push(objects.addTuple(operands.reversed()))
    case UInt8(ascii: "]"): push(.list(objects.addList()))
    case UInt8(ascii: "l"): push(.list(objects.addList(try popToMark())))
    case UInt8(ascii: "a"):
      let value = try pop()
      try append([value], to: try top())
    case UInt8(ascii: "e"), 0x90:
      let values = try popToMark()
      try append(values, to: try top())
    case UInt8(ascii: "}"): push(objects.addDictionary())
    case UInt8(ascii: "d"):
      let values = try popToMark()
      push(objects.addDictionary())
      try insert(values)
    case UInt8(ascii: "s"):
      let value = try pop(), key = try pop()
      try insert([key, value])
    case UInt8(ascii: "u"): try insert(try popToMark())
    case 0x8F: push(.set(objects.addList()))
    case 0x91: push(.set(objects.addList(try popToMark())))
    default: return false
    }
    return true
  }

  private func top() throws -> PickleValue {
    guard let value = stack.last else { throw failure("the pickle adds to nothing") }
    return value
  }

  private mutating func append(_ values: [PickleValue], to container: PickleValue) throws {
    switch container {
    case .list(let index), .set(let index): objects.lists[index].append(contentsOf: values)
    case .foreign: break
    default: throw failure("the pickle adds elements to \(container.kindDescription)")
    }
  }

  private mutating func insert(_ values: [PickleValue]) throws {
    guard values.count % 2 == 0 else { throw failure("the pickle adds a key without value") }
    switch try top() {
    case .dictionary(let index):
      for place in stride(from: 0, to: values.count, by: 2) {
        objects.dictionaries[index].append((values[place], values[place + 1]))
      }
    case .foreign: break
    case let other: throw failure("the pickle adds keys to \(other.kindDescription)")
    }
  }

  // MARK: - Names and what they make

  private mutating func refuse(_ name: String) throws -> PickleValue {
    guard refused != nil else {
      throw failure("the pickle names '\(name)', which is not on the list of what mcc builds", kind: .unsupported)
    }
    refused?.append((name, reader.base + position))
    return .foreign
  }

  private mutating func global(_ module: String, _ name: String) throws -> PickleValue {
    if let global = PickleGlobal(module: module, name: name) { return .global(global) }
    return try refuse("\(module).\(name)")
  }

  private mutating func call(_ function: PickleValue, _ arguments: PickleValue) throws -> PickleValue {
    if case .foreign = function { return .foreign }
    guard case .global(let global) = function, case .tuple = arguments,
      let operands = objects.elements(of: arguments, atMost: 16)
    else { throw failure("the pickle calls \(function.kindDescription) with \(arguments.kindDescription)") }
    func wrong() -> CompileError { failure("the pickle calls \(global.description) with unexpected arguments") }
    if refused != nil, operands.contains(where: { if case .foreign = $0 { true } else { false } }) { return .foreign }
    switch global {
    case .orderedDictionary:
      let result = objects.addDictionary()
      guard operands.count <= 1, case .dictionary(let index) = result else { throw wrong() }
      for pair in try operands.first.map({ try copied($0) }) ?? [] {
        guard let members = objects.elements(of: pair, atMost: 2), members.count == 2 else { throw wrong() }
        objects.dictionaries[index].append((members[0], members[1]))
      }
      return result
    case .size:
      guard operands.count == 1, objects.sizes(of: operands[0]) != nil else { throw wrong() }
      return operands[0]
    case .set, .frozenSet:
      guard operands.count <= 1 else { throw wrong() }
      return .set(objects.addList(try operands.first.map { try copied($0) } ?? []))
    case .encode:
      guard case .string? = operands.first, let text = operands.first else { throw wrong() }
      return text
    case .rebuildTensor, .rebuildTensorV2: return try tensor(operands, type: nil)
    case .rebuildTensorV3:
      guard operands.count >= 7, case .global(.dtype(let name, let type)) = operands[6] else { throw wrong() }
      guard let type else { throw failure("a tensor of type torch.\(name) is not supported", kind: .unsupported) }
      return try tensor(operands, type: type)
    case .rebuildParameter:
      guard let first = operands.first, case .tensor = first else { throw wrong() }
      return first
    case .storage, .dtype: throw wrong()
    }
  }

  /// The elements of a container for another one; a pickle may not multiply what it holds this way.
  private mutating func copied(_ container: PickleValue) throws -> [PickleValue] {
    guard let elements = objects.elements(of: container) else {
      throw failure("the pickle makes a container of \(container.kindDescription)")
    }
    copiedCount += elements.count
    guard copiedCount <= Self.objectLimit else {
      throw failure("the pickle copies more than \(Self.objectLimit) elements")
    }
    return Array(elements)
  }

  /// `_rebuild_tensor_v2(storage, offset, size, stride, ...)`. What may follow is about training.
  private mutating func tensor(_ operands: [PickleValue], type: DType?) throws -> PickleValue {
    guard operands.count >= 4, case .storage(let storage) = operands[0], case .integer(let offset) = operands[1],
      offset >= 0, let sizes = objects.sizes(of: operands[2]), let strides = objects.sizes(of: operands[3])
    else { throw failure("a tensor is made of unexpected arguments, or of negative sizes or strides") }
    guard sizes.count == strides.count else {
      throw failure("a tensor has \(sizes.count) sizes and \(strides.count) strides")
    }
    guard let element = type ?? objects.storages[storage].element else {
      throw failure("a tensor lies in a storage of bytes and says no type")
    }
    objects.tensors.append(
      .init(
        storage: storage, element: element, offset: offset, sizes: sizes, strides: strides,
        position: reader.base + position))
    return .tensor(objects.tensors.count - 1)
  }

  /// `('storage', type, key, place, count)`, in the legacy form with `None` or `(key, offset, count)` behind.
  private mutating func persistent(_ id: PickleValue) throws -> PickleValue {
    guard case .tuple = id, let members = objects.elements(of: id, atMost: 8), members.count >= 5,
      case .string("storage") = members[0], case .global(.storage(let element)) = members[1],
      case .string(let key) = members[2], case .integer(let count) = members[4], count >= 0
    else {
      if refused != nil { return .foreign }
      throw failure("a persistent id does not name a storage")
    }
    var storage = PickleObjects.Storage(key: key, element: element, count: count, position: reader.base + position)
    if members.count > 5, let view = objects.elements(of: members[5], atMost: 3) {
      guard view.count == 3, case .integer(let offset) = view[1], offset >= 0, case .integer(let size) = view[2],
        size >= 0, offset <= count, size <= count - offset
      else { throw failure("a storage is a view that lies outside of its \(count) elements") }
      storage.viewOffset = offset
    }
    objects.storages.append(storage)
    return .storage(objects.storages.count - 1)
  }

  /// State of an object: kept for none. `state_dict` hangs version numbers on its dictionary this way.
  private mutating func build() throws {
    _ = try pop("a state")
    switch try top() {
    case .dictionary, .tensor, .foreign: break
    case let other: throw failure("the pickle sets the state of \(other.kindDescription)")
    }
  }
}
