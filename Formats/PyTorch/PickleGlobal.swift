import Tensors

/// The names that a pickle may use. They stand for meanings built in here; nothing is ever imported or called.
enum PickleGlobal: Hashable, Sendable, CustomStringConvertible {
  case orderedDictionary
  case rebuildTensor
  case rebuildTensorV2
  case rebuildTensorV3
  case rebuildParameter
  /// `torch.Size`, a tuple.
  case size
  case set
  case frozenSet
  /// `_codecs.encode`: how Python 3 writes bytes in protocol 2.
  case encode
  /// A storage whose elements have that type, or bytes of no type.
  case storage(DType?)
  /// A `torch.dtype`; nil if mcc has no such type.
  case dtype(String, DType?)

  private static let storages: [String: DType] = [
    "DoubleStorage": .f64, "FloatStorage": .f32, "HalfStorage": .f16, "BFloat16Storage": .bf16, "LongStorage": .i64,
    "IntStorage": .i32, "ShortStorage": .i16, "CharStorage": .i8, "ByteStorage": .u8, "BoolStorage": .bool,
    "Float8_e4m3fnStorage": .f8e4m3, "Float8_e5m2Storage": .f8e5m2,
  ]

  private static let types: [String: DType?] = [
    "float64": .f64, "double": .f64, "float32": .f32, "float": .f32, "float16": .f16, "half": .f16, "bfloat16": .bf16,
    "float8_e4m3fn": .f8e4m3, "float8_e5m2": .f8e5m2, "int64": .i64, "long": .i64, "int32": .i32, "int": .i32,
    "int16": .i16, "short": .i16, "int8": .i8, "uint8": .u8, "bool": .bool, "uint16": DType?.none,
    "uint32": DType?.none, "uint64": DType?.none, "complex64": DType?.none, "complex128": DType?.none,
    "float8_e4m3fnuz": DType?.none, "float8_e5m2fnuz": DType?.none, "float8_e8m0fnu": DType?.none,
    "float4_e2m1fn_x2": DType?.none, "qint8": DType?.none, "quint8": DType?.none, "qint32": DType?.none,
  ]

  /// The meaning of a module and a name in it; nil if it is not on the list.
  init?(module: String, name: String) {
    switch (module, name) {
    case ("collections", "OrderedDict"): self = .orderedDictionary
    case ("torch._utils", "_rebuild_tensor"): self = .rebuildTensor
    case ("torch._utils", "_rebuild_tensor_v2"): self = .rebuildTensorV2
    case ("torch._utils", "_rebuild_tensor_v3"): self = .rebuildTensorV3
    case ("torch._utils", "_rebuild_parameter"): self = .rebuildParameter
    case ("torch", "Size"): self = .size
    case ("builtins", "set"), ("__builtin__", "set"): self = .set
    case ("builtins", "frozenset"), ("__builtin__", "frozenset"): self = .frozenSet
    case ("_codecs", "encode"): self = .encode
    case ("torch", "UntypedStorage"), ("torch.storage", "UntypedStorage"), ("torch.storage", "_UntypedStorage"):
      self = .storage(nil)
    case ("torch", _):
      if let element = Self.storages[name] {
        self = .storage(element)
      } else if let type = Self.types[name] {
        self = .dtype(name, type)
      } else {
        return nil
      }
    default: return nil
    }
  }

  var description: String {
    switch self {
    case .orderedDictionary: "collections.OrderedDict"
    case .rebuildTensor: "torch._utils._rebuild_tensor"
    case .rebuildTensorV2: "torch._utils._rebuild_tensor_v2"
    case .rebuildTensorV3: "torch._utils._rebuild_tensor_v3"
    case .rebuildParameter: "torch._utils._rebuild_parameter"
    case .size: "torch.Size"
    case .set: "set"
    case .frozenSet: "frozenset"
    case .encode: "_codecs.encode"
    case .storage(let element): "torch storage of \(element?.rawValue ?? "bytes")"
    case .dtype(let name, _): "torch.\(name)"
    }
  }
}
