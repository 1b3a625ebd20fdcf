import Base
import Glibc

/// The ids of tokens by the bytes of their text.
///
/// Texts are told apart byte by byte: canonically equivalent ones are different tokens.
struct TokenIndex: Sendable {
  private struct Entry {
    /// Where the bytes begin in `text`.
    var start: Int
    var length: Int32
    var id: Int32
  }

  private var text: [UInt8] = []
  private var entries: [Entry] = []
  /// Open addressing: position in `entries` plus one, 0 if free.
  private var slots: [Int32]

  /// An index with room for `capacity` tokens.
  init(capacity: Int) {
    var size = 32
    while size < capacity * 2 { size *= 2 }
    slots = [Int32](repeating: 0, count: size)
    entries.reserveCapacity(capacity)
  }

  private static func hash(_ bytes: UnsafeRawBufferPointer) -> Int {
    var hasher = Hasher()
    hasher.combine(bytes: bytes)
    return hasher.finalize()
  }

  /// The slot of a text: where it is, or where it belongs.
  private func slot(_ bytes: UnsafeRawBufferPointer) -> Int {
    var slot = Self.hash(bytes) & (slots.count - 1)
    while slots[slot] != 0 {
      let entry = entries[Int(slots[slot]) - 1]
      if Int(entry.length) == bytes.count {
        let isEqual = text.withUnsafeBytes { all in
          guard let start = all.baseAddress, let other = bytes.baseAddress else { return bytes.isEmpty }
          return memcmp(start + entry.start, other, bytes.count) == 0
        }
        if isEqual { return slot }
      }
      slot = (slot + 1) & (slots.count - 1)
    }
    return slot
  }

  /// The id of a text.
  func id(of bytes: UnsafeRawBufferPointer) -> Int32? {
    let slot = slots[slot(bytes)]
    return slot == 0 ? nil : entries[Int(slot) - 1].id
  }

  /// The id of a text.
  func id(of text: String) -> Int? {
    var text = text
    return text.withUTF8 { id(of: UnsafeRawBufferPointer($0)) }.map { Int($0) }
  }

  /// Adds a text.
  ///
  /// - Returns: the id it has already, and then changes nothing.
  mutating func insert(_ token: String, _ id: Int) -> Int? {
    if (entries.count + 1) * 2 > slots.count { grow() }
    var token = token
    return token.withUTF8 { utf8 in
      let bytes = UnsafeRawBufferPointer(utf8)
      let slot = slot(bytes)
      if slots[slot] != 0 { return Int(entries[Int(slots[slot]) - 1].id) }
      entries.append(Entry(start: text.count, length: Int32(bytes.count), id: Int32(id)))
      text.append(contentsOf: bytes)
      slots[slot] = Int32(entries.count)
      return nil
    }
  }

  private mutating func grow() {
    slots = [Int32](repeating: 0, count: slots.count * 2)
    for (position, entry) in entries.enumerated() {
      let free = text.withUnsafeBytes { all in
        slot(UnsafeRawBufferPointer(rebasing: all[entry.start..<entry.start + Int(entry.length)]))
      }
      slots[free] = Int32(position + 1)
    }
  }
}

/// Turns the merges of a checkpoint, texts of two tokens, into ids.
struct MergeReader {
  let index: TokenIndex
  /// Left and right id in turn.
  private(set) var merges: [Int32] = []
  private var joined: [UInt8] = []
  private let markBytes: [UInt8]

  /// Merges into tokens of the index; those inside of a word begin with `mark`.
  init(_ index: TokenIndex, mark: String = "", count: Int) {
    self.index = index
    markBytes = Array(mark.utf8)
    merges.reserveCapacity(count * 2)
  }

  /// Adds a merge written as two texts with one space between them.
  mutating func add(_ merge: String) throws(MergeFailure) {
    var merge = merge
    let failure: MergeFailure? = merge.withUTF8 { utf8 in
      let bytes = UnsafeRawBufferPointer(utf8)
      guard let start = bytes.baseAddress, let found = memchr(start, 0x20, bytes.count) else { return .notTwoTexts }
      let space = UnsafeRawPointer(found) - start
      let rest = bytes.count - space - 1
      guard memchr(found + 1, 0x20, rest) == nil else { return .notTwoTexts }
      return add(
        UnsafeRawBufferPointer(start: start, count: space), UnsafeRawBufferPointer(start: found + 1, count: rest))
    }
    if let failure { throw failure }
  }

  /// Adds a merge of two texts.
  mutating func add(_ left: String, _ right: String) throws(MergeFailure) {
    var (left, right) = (left, right)
    let failure: MergeFailure? = left.withUTF8 { left in
      right.withUTF8 { right in add(UnsafeRawBufferPointer(left), UnsafeRawBufferPointer(right)) }
    }
    if let failure { throw failure }
  }

  private mutating func add(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> MergeFailure? {
    guard let leftID = index.id(of: left) else { return .noToken(String(decoding: left, as: UTF8.self)) }
    guard let rightID = index.id(of: right) else { return .noToken(String(decoding: right, as: UTF8.self)) }
    var right = right
    if !markBytes.isEmpty, right.starts(with: markBytes) {
      right = UnsafeRawBufferPointer(rebasing: right[markBytes.count...])
    }
    let count = left.count + right.count
    if joined.count < count { joined = [UInt8](repeating: 0, count: 2 * count) }
    let isToken = joined.withUnsafeMutableBytes { joined in
      if !left.isEmpty { joined.copyMemory(from: left) }
      if !right.isEmpty { UnsafeMutableRawBufferPointer(rebasing: joined[left.count...]).copyMemory(from: right) }
      return index.id(of: UnsafeRawBufferPointer(rebasing: joined[..<count])) != nil
    }
    guard isToken else { return .noToken(String(decoding: joined[..<count], as: UTF8.self)) }
    merges.append(leftID)
    merges.append(rightID)
    return nil
  }
}

/// What is wrong with a merge.
enum MergeFailure: Error {
  case notTwoTexts
  case noToken(String)

  var message: String {
    switch self {
    case .notTwoTexts: "is not two texts with one space between them"
    case .noToken(let text): "needs the token '\(text)', which is not in the vocabulary"
    }
  }
}

/// The byte that a token of the form `<0x0A>` stands for, with two upper-case digits; nil for other texts.
func byteOfToken(_ text: String) -> UInt8? {
  guard text.utf8.count == 6 else { return nil }
  let utf8 = Array(text.utf8)
  guard utf8.starts(with: "<0x".utf8), utf8[5] == UInt8(ascii: ">") else { return nil }
  var value: UInt8 = 0
  for digit in utf8[3...4] {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | (digit - UInt8(ascii: "0"))
    case UInt8(ascii: "A")...UInt8(ascii: "F"): value = value << 4 | (digit - UInt8(ascii: "A") + 10)
    default: return nil
    }
  }
  return value
}
