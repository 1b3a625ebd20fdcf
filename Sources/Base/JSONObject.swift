/// The members of a JSON object in the order of the file, with fast look-up by key.
///
/// Keys are told apart by their UTF-8.
package struct JSONObject: Sendable, Equatable, RandomAccessCollection {
  /// The keys, in order.
  package private(set) var keys: [String] = []
  /// The values, in the order of the keys.
  package private(set) var values: [JSON] = []
  /// Open addressing: position of a key plus one, 0 if free. Empty for small objects, which are searched.
  private var slots: [Int32] = []

  private static let largestSearched = 8

  /// An object without members.
  package init() {}

  /// An object of the given members; of equal keys the last one counts.
  package init(_ members: some Sequence<(String, JSON)>) {
    for (key, value) in members { self[key] = value }
  }

  /// An object of keys that are known to be distinct.
  init(distinctKeys keys: [String], values: [JSON]) {
    precondition(keys.count == values.count, "one value per key")
    self.keys = keys
    self.values = values
    rebuildSlots()
  }

  package var startIndex: Int { 0 }
  package var endIndex: Int { keys.count }
  package subscript(position: Int) -> (key: String, value: JSON) { (keys[position], values[position]) }

  /// The value under `key`. Setting appends a new key at the end; setting nil removes the key.
  package subscript(key: String) -> JSON? {
    get { index(of: key).map { values[$0] } }
    set {
      switch (index(of: key), newValue) {
      case (let position?, let value?): values[position] = value
      case (let position?, nil):
        keys.remove(at: position)
        values.remove(at: position)
        rebuildSlots()
      case (nil, let value?):
        keys.append(key)
        values.append(value)
        if slots.isEmpty ? keys.count > Self.largestSearched : keys.count * 2 > slots.count {
          rebuildSlots()
        } else if !slots.isEmpty {
          insertSlot(keys.count - 1)
        }
      case (nil, nil): break
      }
    }
  }

  /// The position of `key` among the keys; nil if it is not there.
  package func index(of key: String) -> Int? {
    if slots.isEmpty { return keys.firstIndex { $0.utf8.elementsEqual(key.utf8) } }
    var slot = Self.hash(key) & (slots.count - 1)
    while slots[slot] != 0 {
      let position = Int(slots[slot]) - 1
      if keys[position].utf8.elementsEqual(key.utf8) { return position }
      slot = (slot + 1) & (slots.count - 1)
    }
    return nil
  }

  private mutating func rebuildSlots() {
    guard keys.count > Self.largestSearched else {
      slots = []
      return
    }
    var capacity = 32
    while capacity < keys.count * 4 { capacity *= 2 }
    slots = [Int32](repeating: 0, count: capacity)
    for position in keys.indices { insertSlot(position) }
  }

  private mutating func insertSlot(_ position: Int) {
    var slot = Self.hash(keys[position]) & (slots.count - 1)
    while slots[slot] != 0 { slot = (slot + 1) & (slots.count - 1) }
    slots[slot] = Int32(position + 1)
  }

  private static func hash(_ key: String) -> Int {
    var hasher = Hasher()
    var key = key
    key.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    return hasher.finalize()
  }

  /// Whether both have the same members, in any order.
  package static func == (a: JSONObject, b: JSONObject) -> Bool {
    a.count == b.count && a.allSatisfy { member in b[member.key].map { $0 == member.value } ?? false }
  }
}
