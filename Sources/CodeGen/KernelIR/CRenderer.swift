/// Prints kernels as C for one target: intrinsics or vector extensions as the target's vocabulary says.
package struct CRenderer {
  package let target: Target

  package init(target: Target) { self.target = target }

  /// A whole C file: includes, the helper functions that are used, then the kernels in order.
  package func file(_ kernels: [KernelFunction], includes: [String] = ["\"kernels.h\""]) -> String {
    var printer = CPrinter(target: target)
    let bodies = kernels.map { printer.function($0) }
    var text = includes.map { "#include \($0)\n" }.joined()
    text += "\n#include <math.h>\n#include <stdint.h>\n#include <string.h>\n\n"
    text += target.vocabulary.preamble.joined(separator: "\n") + "\n\n"
    for helper in printer.helpers { text += helper + "\n\n" }
    return text + bodies.joined(separator: "\n")
  }

  /// The kernels in groups of about `limit` lines, for files that compile side by side.
  package func groups(_ kernels: [KernelFunction], lines limit: Int = 500) -> [[KernelFunction]] {
    var groups: [[KernelFunction]] = []
    var lines = limit
    for kernel in kernels {
      let count = file([kernel]).utf8.lazy.filter { $0 == 0x0A }.count
      if lines + count > limit {
        groups.append([])
        lines = 0
      }
      groups[groups.count - 1].append(kernel)
      lines += count
    }
    return groups
  }

  /// A C header with the prototypes of the kernels.
  package func header(_ kernels: [KernelFunction], guardName: String = "KERNELS_H", includes: [String] = ["\"mcc.h\""])
    -> String
  {
    var text = "#ifndef \(guardName)\n#define \(guardName)\n\n"
    text += includes.map { "#include \($0)\n" }.joined() + "\n"
    for kernel in kernels { text += prototype(kernel) + ";\n" }
    return text + "\n#endif\n"
  }

  /// `void name(const mcc_thread *t, ...)` without the semicolon, broken at 120 columns.
  package func prototype(_ kernel: KernelFunction) -> String {
    let parameters = kernel.parameters.map { parameter -> String in
      switch parameter {
      case .pointer(let pointer): CRenderer.declaration(pointer)
      case .symbol(let name): "int64_t \(name)"
      }
    }
    return CRenderer.wrapped("void \(kernel.name)(", ["const mcc_thread *t"] + parameters)
  }

  /// A statement that calls the kernel with C expressions for its parameters, in their order.
  package func call(_ kernel: KernelFunction, arguments: [String], thread: String = "t") -> String {
    precondition(arguments.count == kernel.parameters.count, "wrong number of arguments of \(kernel.name)")
    return "\(kernel.name)(\(([thread] + arguments).joined(separator: ", ")));"
  }

  /// `const float *x` and so on.
  package static func declaration(_ pointer: Pointer) -> String {
    "\(pointer.isMutable ? "" : "const ")\(cType(pointer.element)) *\(pointer.name)"
  }

  /// The C type of elements in memory; f16 and bf16 are `uint16_t`.
  package static func cType(_ element: ScalarType) -> String {
    switch element {
    case .f32: "float"
    case .f64: "double"
    case .f16, .bf16: "uint16_t"
    case .i8: "int8_t"
    case .u8: "uint8_t"
    case .i16: "int16_t"
    case .i32: "int32_t"
    case .i64: "int64_t"
    }
  }

  static func wrapped(_ head: String, _ items: [String]) -> String {
    let line = head + items.joined(separator: ", ") + ")"
    if line.count <= 118 { return line }
    var text = head, column = head.count
    let indent = String(repeating: " ", count: min(head.count, 24))
    for (index, item) in items.enumerated() {
      let last = index == items.count - 1
      if column + item.count + 2 > 118, index > 0 {
        text = String(text.dropLast()) + "\n" + indent
        column = indent.count
      }
      text += item + (last ? ")" : ", ")
      column += item.count + 2
    }
    return text
  }
}
