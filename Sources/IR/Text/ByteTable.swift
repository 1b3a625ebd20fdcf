/// Numbers byte strings in the order in which they are first seen: a dictionary that looks up parts of a text without
/// making strings of them.
struct ByteTable {
  private struct Entry {
    var hash: UInt64
    /// The range of the bytes in `storage`.
    var start: Int
    var end: Int
  }

  private var storage: [UInt8] = []
  private var entries: [Entry] = []
  /// Positions in `entries`, -1 for free; the size is a power of two.
  private var slots = [Int32](repeating: -1, count: 64)

  private static func hash(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    // FNV-1a (Fowler, Noll, Vo), with a last step that spreads the high bits.
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return hash ^ hash &>> 29
  }

  /// The place in `slots` of the entry with these bytes, or the free one where it would go.
  private func slot(_ bytes: ArraySlice<UInt8>, _ hash: UInt64) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] >= 0 {
      let entry = entries[Int(slots[slot])]
      if entry.hash == hash, storage[entry.start..<entry.end] == bytes { return slot }
      slot = (slot + 1) & mask
    }
    return slot
  }

  /// The number of the bytes, if they have been inserted.
  func index(of bytes: ArraySlice<UInt8>) -> Int? {
    let index = slots[slot(bytes, Self.hash(bytes))]
    return index < 0 ? nil : Int(index)
  }

  /// Gives the bytes the next number.
  ///
  /// - Returns: false, with nothing changed, if they have one.
  mutating func insert(_ bytes: ArraySlice<UInt8>) -> Bool {
    let hash = Self.hash(bytes)
    var place = slot(bytes, hash)
    guard slots[place] < 0 else { return false }
    if entries.count * 2 >= slots.count {
      slots = [Int32](repeating: -1, count: slots.count * 2)
      let mask = slots.count - 1
      for (index, entry) in entries.enumerated() {
        var slot = Int(truncatingIfNeeded: entry.hash) & mask
        while slots[slot] >= 0 { slot = (slot + 1) & mask }
        slots[slot] = Int32(index)
      }
      place = slot(bytes, hash)
    }
    slots[place] = Int32(entries.count)
    entries.append(Entry(hash: hash, start: storage.count, end: storage.count + bytes.count))
    storage.append(contentsOf: bytes)
    return true
  }

  /// All byte strings as text, in order.
  var strings: [String] { entries.map { String(decoding: storage[$0.start..<$0.end], as: UTF8.self) } }
}
