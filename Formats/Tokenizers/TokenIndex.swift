import Base
import Glibc

/// The ids of tokens by the bytes of their text.
///
/// Texts are told apart byte by byte: canonically equivalent ones are different tokens.
struct TokenIndex: Sendable {
  private struct Slot {
    /// Where the bytes begin in `text`.
    var start = 0
    /// Less than 0 for a free slot.
    var length: Int32 = -1
    var id: Int32 = 0
  }

  private var text: [UInt8] = []
  /// Open addressing.
  private var slots: [Slot]
  private var count = 0
  private let hash = KeyedHash()

  /// An index with room for `capacity` tokens.
  init(capacity: Int) {
    var size = 32
    while size < capacity * 2 { size *= 2 }
    slots = [Slot](repeating: Slot(), count: size)
  }

  /// The slot of a text: where it is, or where it belongs.
  private func slot(_ bytes: UnsafeRawBufferPointer) -> Int {
    slots.withUnsafeBufferPointer { slots in
      text.withUnsafeBytes { text in
        let mask = slots.count - 1
        var place = hash(bytes) & mask
        while slots[place].length >= 0 {
          let slot = slots[place]
          if Int(slot.length) == bytes.count {
            guard let start = text.baseAddress, let other = bytes.baseAddress else { return place }
            if memcmp(start + slot.start, other, bytes.count) == 0 { return place }
          }
          place = (place + 1) & mask
        }
        return place
      }
    }
  }

  /// The id of a text.
  func id(of bytes: UnsafeRawBufferPointer) -> Int32? {
    let slot = slots[slot(bytes)]
    return slot.length < 0 ? nil : slot.id
  }

  /// The id of a text.
  func id(of text: String) -> Int? {
    var text = text
    return text.withUTF8 { id(of: UnsafeRawBufferPointer($0)) }.map { Int($0) }
  }

  /// Adds a text.
  ///
  /// - Returns: the id it has already, and then changes nothing.
  mutating func insert(_ token: UnsafeRawBufferPointer, _ id: Int) -> Int? {
    if (count + 1) * 2 > slots.count { grow() }
    let place = slot(token)
    if slots[place].length >= 0 { return Int(slots[place].id) }
    slots[place] = Slot(start: text.count, length: Int32(token.count), id: Int32(id))
    text.append(contentsOf: token)
    count += 1
    return nil
  }

  /// Adds a text.
  ///
  /// - Returns: the id it has already, and then changes nothing.
  mutating func insert(_ token: String, _ id: Int) -> Int? {
    var token = token
    return token.withUTF8 { insert(UnsafeRawBufferPointer($0), id) }
  }

  private mutating func grow() {
    let old = slots
    slots = [Slot](repeating: Slot(), count: old.count * 2)
    for entry in old where entry.length >= 0 {
      let place = text.withUnsafeBytes { text in
        slot(UnsafeRawBufferPointer(rebasing: text[entry.start..<entry.start + Int(entry.length)]))
      }
      slots[place] = entry
    }
  }
}

/// A hash of bytes by folded multiplication (as in wyhash) under a random key, so that a file cannot hold many texts of one
/// hash.
private struct KeyedHash: Sendable {
  private let first = UInt64.random(in: 0 ... .max)
  private let second = UInt64.random(in: 0 ... .max)

  @inline(__always) private func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
  }

  @inline(__always) func callAsFunction(_ bytes: UnsafeRawBufferPointer) -> Int {
    let count = bytes.count
    var state = first
    var offset = 0
    while count - offset > 16 {
      let word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      state = fold(word ^ second, bytes.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self) ^ state)
      offset += 16
    }
    var head: UInt64 = 0
    var tail: UInt64 = 0
    switch count - offset {
    case 8...:
      head = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      tail = bytes.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
    case 4...:
      head = UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      tail = UInt64(bytes.loadUnaligned(fromByteOffset: count - 4, as: UInt32.self))
    case let rest where rest > 0:
      head = UInt64(bytes[offset]) | UInt64(bytes[offset + rest / 2]) << 8 | UInt64(bytes[count - 1]) << 16
    default: break
    }
    let folded = fold(head ^ second, tail ^ state)
    return Int(truncatingIfNeeded: fold(folded ^ first, UInt64(truncatingIfNeeded: count) ^ second))
  }
}

/// Turns the merges of a checkpoint, texts of two tokens, into ids.
struct MergeReader {
  let index: TokenIndex
  /// Left and right id in turn.
  private(set) var merges: [Int32] = []
  private var leftID: Int32 = 0
  /// The text of the left token, and then that of both.
  private var joined: [UInt8] = []
  private let markBytes: [UInt8]

  /// Merges into tokens of the index; those inside of a word begin with `mark`.
  init(_ index: TokenIndex, mark: String = "", count: Int) {
    self.index = index
    markBytes = Array(mark.utf8)
    merges.reserveCapacity(count * 2)
  }

  /// Adds a merge written as two texts with one space between them.
  mutating func add(_ merge: UnsafeRawBufferPointer) throws(MergeFailure) {
    guard let start = merge.baseAddress, let found = memchr(start, 0x20, merge.count) else { throw .notTwoTexts }
    let space = UnsafeRawPointer(found) - start
    let right = UnsafeRawBufferPointer(rebasing: merge[(space + 1)...])
    guard !right.contains(0x20) else { throw .notTwoTexts }
    try setLeft(UnsafeRawBufferPointer(rebasing: merge[..<space]))
    try addRight(right)
  }

  /// Adds a merge written as two texts with one space between them.
  mutating func add(_ merge: String) throws(MergeFailure) {
    var merge = merge
    let failure: MergeFailure? = merge.withUTF8 { utf8 in
      do throws(MergeFailure) {
        try add(UnsafeRawBufferPointer(utf8))
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw failure }
  }

  /// Begins a merge with its left text, which is copied.
  mutating func setLeft(_ left: UnsafeRawBufferPointer) throws(MergeFailure) {
    guard let id = index.id(of: left) else { throw .noToken(String(decoding: left, as: UTF8.self)) }
    leftID = id
    joined.removeAll(keepingCapacity: true)
    joined.append(contentsOf: left)
  }

  /// Adds the merge of the left text and this one.
  mutating func addRight(_ right: UnsafeRawBufferPointer) throws(MergeFailure) {
    guard let rightID = index.id(of: right) else { throw .noToken(String(decoding: right, as: UTF8.self)) }
    let isMarked = !markBytes.isEmpty && right.starts(with: markBytes)
    joined.append(contentsOf: UnsafeRawBufferPointer(rebasing: right.dropFirst(isMarked ? markBytes.count : 0)))
    guard joined.withUnsafeBytes({ index.id(of: $0) }) != nil else {
      throw .noToken(String(decoding: joined, as: UTF8.self))
    }
    merges.append(leftID)
    merges.append(rightID)
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
