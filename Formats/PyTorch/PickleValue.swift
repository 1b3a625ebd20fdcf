import Tensors

/// What a pickle builds: plain containers, numbers, text, and the tensors and storages of PyTorch.
///
/// Containers are numbers into the arenas of ``PickleObjects``, so that a pickle may refer to one object twice, or to
/// itself, without any recursion here.
enum PickleValue: Sendable {
  /// A place on the stack that ends a list of operands.
  case mark
  case none
  case bool(Bool)
  case integer(Int)
  /// An integer outside 64 bits: its bytes in the pickle.
  case longInteger(Range<Int>)
  case float(Double)
  case string(String)
  /// Bytes of the pickle.
  case bytes(Range<Int>)
  case global(PickleGlobal)
  case tuple(Int)
  case list(Int)
  case dictionary(Int)
  case set(Int)
  case storage(Int)
  case tensor(Int)
  /// Something that only an audit passes over.
  case foreign

  /// What the value is, for messages.
  var kindDescription: String {
    switch self {
    case .mark: "a mark"
    case .none: "None"
    case .bool: "a boolean"
    case .integer, .longInteger: "an integer"
    case .float: "a number"
    case .string: "a string"
    case .bytes: "bytes"
    case .global(let global): "the name \(global.description)"
    case .tuple: "a tuple"
    case .list: "a list"
    case .dictionary: "a dictionary"
    case .set: "a set"
    case .storage: "a storage"
    case .tensor: "a tensor"
    case .foreign: "an object of a refused class"
    }
  }
}

/// The objects that a pickle has built.
struct PickleObjects: Sendable {
  /// A run of numbers that tensors share: the elements of one `torch.Storage`.
  struct Storage: Sendable {
    /// The name under which the archive holds the bytes.
    var key: String
    /// The element type; nil if the storage counts bytes.
    var element: DType?
    /// Elements, or bytes.
    var count: Int
    /// For a part of another storage (legacy form): its first element there.
    var viewOffset = 0
    /// Where in the pickle the storage is named.
    var position: Int
  }

  /// A view of a storage.
  struct Tensor: Sendable {
    var storage: Int
    var element: DType
    /// The first element, counted in elements.
    var offset: Int
    var sizes: [Int]
    var strides: [Int]
    /// Where in the pickle the tensor is made.
    var position: Int
  }

  /// The elements of all tuples, and where those of each one lie.
  private(set) var tupleElements: [PickleValue] = []
  private var tuples: [Range<Int>] = []
  var lists: [[PickleValue]] = []
  var dictionaries: [[(key: PickleValue, value: PickleValue)]] = []
  var storages: [Storage] = []
  var tensors: [Tensor] = []

  /// How many objects there are, for a limit.
  var count: Int { tuples.count + lists.count + dictionaries.count + storages.count + tensors.count }

  mutating func addTuple(_ elements: [PickleValue]) -> PickleValue {
    tuples.append(tupleElements.count..<tupleElements.count + elements.count)
    tupleElements.append(contentsOf: elements)
    return .tuple(tuples.count - 1)
  }

  mutating func addList(_ elements: [PickleValue] = []) -> Int {
    lists.append(elements)
    return lists.count - 1
  }

  mutating func addDictionary() -> PickleValue {
    dictionaries.append([])
    return .dictionary(dictionaries.count - 1)
  }

  /// The elements of a tuple or list; nil for anything else.
  func elements(of value: PickleValue) -> ArraySlice<PickleValue>? {
    switch value {
    case .tuple(let index): tupleElements[tuples[index]]
    case .list(let index), .set(let index): lists[index][...]
    default: nil
    }
  }

  /// A copy of the elements of a tuple or list; nil for anything else and for more than `limit`.
  func elements(of value: PickleValue, atMost limit: Int) -> [PickleValue]? {
    guard let elements = elements(of: value), elements.count <= limit else { return nil }
    return Array(elements)
  }

  /// A tuple or list of at most 64 integers of at least 0; nil for anything else.
  func sizes(of value: PickleValue) -> [Int]? {
    guard let elements = elements(of: value), elements.count <= 64 else { return nil }
    var sizes: [Int] = []
    for element in elements {
      guard case .integer(let size) = element, size >= 0 else { return nil }
      sizes.append(size)
    }
    return sizes
  }
}
