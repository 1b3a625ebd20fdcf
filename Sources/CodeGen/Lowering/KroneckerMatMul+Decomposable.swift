import IR
import Tensors

/// kronecker_matmul(x, a, b) -> the products by b and a, one after the other
///
///     %h = matmul(reshape(%x) {shape = [T, A_m, B_m]}, transpose(%b)) {transposeB = true}      // [T, A_m, B_n]
///     %y = reshape(transpose(matmul(transpose(%h), transpose(%a)) {transposeB = true}))        // [T, A_n B_n]
extension KroneckerMatMul: Decomposable {
  package func decompose(_ inputs: [ValueID], in builder: inout GraphBuilder) throws -> [ValueID] {
    let (x, a, b) = (inputs[0], builder.type(of: inputs[1]).shape, builder.type(of: inputs[2]).shape)
    let leading = Array(builder.type(of: x).shape.dims.dropLast())
    let rank = leading.count + 2
    var swap = Array(0..<rank)
    swap.swapAt(rank - 2, rank - 1)
    let left = try builder.emit(Transpose([1, 0]), inputs[1])
    let right = try builder.emit(Transpose([1, 0]), inputs[2])
    let cut = try builder.emit(Reshape(leading + [a[0], b[0]]), x)
    let inner = try builder.emit(MatMul(transposeB: true), cut, right)
    let turned = try builder.emit(Transpose(swap), inner)
    let outer = try builder.emit(MatMul(transposeB: true), turned, left)
    let back = try builder.emit(Transpose(swap), outer)
    let result = try inferTypes(inputs.map { builder.type(of: $0) })[0]
    return [try builder.emit(Reshape(result.shape.dims), back)]
  }
}
