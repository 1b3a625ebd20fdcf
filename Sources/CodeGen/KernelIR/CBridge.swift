/// Collects what Swift kernels take from C: a header of small inline functions around the verbs of the target's C
/// vocabulary that the Swift vocabulary lacks, which the Swift compiler inlines like its own.
struct CBridge {
  private let target: Target
  private var printer: CPrinter
  private var functions: [String] = []
  private var known: Set<String> = []
  /// Sizes of the local arrays, by number.
  private var arrays: [Int] = []

  init(target: Target) {
    self.target = target
    printer = CPrinter(target: target)
  }

  /// The name of the C function for a verb; a place in memory is passed as pointer and index, literals are part of it.
  mutating func function(_ use: VerbUse) -> String {
    var name = "mcc_c_" + use.name.map { $0 == "." ? "_" : String($0) }.joined()
    for case .literal(let value) in use.operands { name += value < 0 ? "_m\(-value)" : "_\(value)" }
    guard known.insert(name).inserted else { return name }
    var parameters: [String] = []
    var operands: [String] = []
    for (index, operand) in use.operands.enumerated() {
      switch operand {
      case .value(let value), .argument(let value):
        parameters.append("\(bridgedType(value.type)) x\(index)")
        operands.append(inward("x\(index)", value.type))
      case .address(let pointer, _):
        let type = CRenderer.cType(pointer.element)
        parameters += ["\(use.result == nil ? "" : "const ")\(type) *x\(index)", "ptrdiff_t i\(index)"]
        operands.append("x\(index) + i\(index)")
      case .element(let pointer, _):
        parameters.append("\(CRenderer.cType(pointer.element)) x\(index)")
        operands.append("x\(index)")
      case .literal(let value): operands.append("\(value)")
      }
    }
    let list = parameters.isEmpty ? "void" : parameters.joined(separator: ", ")
    let value = printer.verb(use.name, operands)
    let result = use.result.map(bridgedType) ?? "void"
    let body = use.result.map { "return \(outward(value, $0))" } ?? value
    functions.append("MCC_INLINE \(result) \(name)(\(list)) {\n  \(body);\n}")
    return name
  }

  /// The name of the function that gives the memory of the `index`-th local array of a kernel, of at least `bytes` bytes;
  /// every thread has its own.
  mutating func array(_ index: Int, bytes: Int) -> String {
    while arrays.count <= index { arrays.append(0) }
    arrays[index] = max(arrays[index], bytes)
    return "mcc_array_\(index)"
  }

  /// What kernels call of the C library, by declaration where its headers are not at hand.
  private static let library: String = {
    let unary = ["exp", "log", "tanh", "erf", "sin", "cos", "sqrt", "floor", "rint", "fabs"]
    let binary = ["pow", "fmod"]
    let functions =
      unary.map { "float \($0)f(float);" } + binary.map { "float \($0)f(float, float);" }
      + ["float fmaf(float, float, float);", "double sqrt(double);", "void *memcpy(void *, const void *, size_t);"]
    return """
      #ifdef MCC_FREESTANDING
      \(functions.joined(separator: "\n"))
      #define NAN __builtin_nanf("")
      #define INFINITY __builtin_inff()
      #else
      #include <math.h>
      #include <string.h>
      #endif

      """
  }()

  private func bridgedType(_ type: ValueType) -> String {
    switch type {
    case .scalar(.i64): "ptrdiff_t"
    case .scalar(let scalar): CRenderer.cType(scalar)
    case .vector(.f32): "mcc_floats"
    case .vector(.i32), .mask: "mcc_ints"
    case .condition: "bool"
    }
  }

  /// An argument as the vocabulary's type. Masks come as lanes of 0 and -1.
  private mutating func inward(_ name: String, _ type: ValueType) -> String {
    switch type {
    case .vector(.f32): "((\(target.vocabulary.f32))\(name))"
    case .vector(.i32): "((\(target.vocabulary.i32))\(name))"
    case .mask:
      printer.verb("lt.i32", ["((\(target.vocabulary.i32))\(name))", printer.verb("zero.i32", [])])
    default: name
    }
  }

  private mutating func outward(_ value: String, _ type: ValueType) -> String {
    switch type {
    case .vector(.f32): "(mcc_floats)(\(value))"
    case .vector(.i32): "(mcc_ints)(\(value))"
    case .mask:
      "(mcc_ints)("
        + printer.verb("select.i32", [value, printer.verb("broadcast.i32", ["-1"]), printer.verb("zero.i32", [])]) + ")"
    default: value
    }
  }

  /// The header.
  func text(guardName: String) -> String {
    let bytes = target.vectorBytes
    var text = "/* What Swift cannot say: included by the kernels beside it. */\n"
    text += "#ifndef \(guardName)\n#define \(guardName)\n\n#include \"mcc.h\"\n\n"
    text += "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n"
    text += Self.library + "\n"
    text += target.vocabulary.preamble.joined(separator: "\n") + "\n"
    text += """
      typedef float mcc_floats __attribute__((vector_size(\(bytes))));
      typedef int32_t mcc_ints __attribute__((vector_size(\(bytes))));
      #define MCC_INLINE static inline __attribute__((always_inline))

      MCC_INLINE void mcc_prefetch(const void *p) {
        __builtin_prefetch(p);
      }


      """
    for (index, size) in arrays.enumerated() {
      text += """
        /* Memory of a kernel's local array. */
        MCC_INLINE void *_Nonnull mcc_array_\(index)(void) {
          static _Thread_local _Alignas(64) uint8_t bytes[\(size)];
          return bytes;
        }


        """
    }
    for function in printer.helpers + functions { text += function + "\n\n" }
    return text + "#endif\n"
  }
}
