define void @add_max_subtract_exp_sum_divide_1f451e4e4337(ptr noalias %buffers, ptr noalias %sizes, i64 %begin, i64 %end, i64 %part) nounwind {
entry:
  %b0.p = getelementptr ptr, ptr %buffers, i64 0
  %b0 = load ptr, ptr %b0.p
  %b1.p = getelementptr ptr, ptr %buffers, i64 1
  %b1 = load ptr, ptr %b1.p
  %b2.p = getelementptr ptr, ptr %buffers, i64 2
  %b2 = load ptr, ptr %b2.p
  %t0.p = getelementptr ptr, ptr %buffers, i64 3
  %t0 = load ptr, ptr %t0.p
  %n.n.p = getelementptr i64, ptr %sizes, i64 2
  %n.n = load i64, ptr %n.n.p
  %acc.a0 = alloca float
  %acc.a1 = alloca float
  br label %head1
head1:
  %i.head1 = phi i64 [ %begin, %entry ], [ %v53, %exit42 ]
  %v4 = icmp slt i64 %i.head1, %end
  br i1 %v4, label %body2, label %exit3
body2:
  store float 0xFFF0000000000000, ptr %acc.a0
  br label %head5
head5:
  %j.head5 = phi i64 [ 0, %body2 ], [ %v18, %body6 ]
  %v8 = icmp slt i64 %j.head5, 6
  br i1 %v8, label %body6, label %exit7
body6:
  %v9 = mul nsw i64 6, %i.head1
  %v10 = add nsw i64 %v9, %j.head5
  %v11 = getelementptr inbounds float, ptr %b0, i64 %v10
  %v12 = load float, ptr %v11, !llvm.access.group !1
  %v13 = getelementptr inbounds float, ptr %b1, i64 %j.head5
  %v14 = load float, ptr %v13, !llvm.access.group !1
  %v15 = fadd float %v12, %v14
  %v16 = load float, ptr %acc.a0
  %v17 = call nsz float @llvm.maximum.f32(float %v16, float %v15)
  store float %v17, ptr %acc.a0
  %v18 = add nsw i64 %j.head5, 1
  br label %head5, !llvm.loop !12
exit7:
  store float 0x0000000000000000, ptr %acc.a1
  %v19 = load float, ptr %acc.a0
  br label %head20
head20:
  %j.head20 = phi i64 [ 0, %exit7 ], [ %v38, %body21 ]
  %v23 = icmp slt i64 %j.head20, 6
  br i1 %v23, label %body21, label %exit22
body21:
  %v24 = mul nsw i64 6, %i.head1
  %v25 = add nsw i64 %v24, %j.head20
  %v26 = getelementptr inbounds float, ptr %b0, i64 %v25
  %v27 = load float, ptr %v26, !llvm.access.group !1
  %v28 = getelementptr inbounds float, ptr %b1, i64 %j.head20
  %v29 = load float, ptr %v28, !llvm.access.group !1
  %v30 = fadd float %v27, %v29
  %v31 = fsub float %v30, %v19
  %v32 = call float @gnn.exp.f32(float %v31)
  %v33 = mul nsw i64 6, %part
  %v34 = add nsw i64 %j.head20, %v33
  %v35 = getelementptr inbounds float, ptr %t0, i64 %v34
  store float %v32, ptr %v35, !llvm.access.group !1
  %v36 = load float, ptr %acc.a1
  %v37 = fadd reassoc nsz contract float %v36, %v32
  store float %v37, ptr %acc.a1
  %v38 = add nsw i64 %j.head20, 1
  br label %head20, !llvm.loop !14
exit22:
  %v39 = load float, ptr %acc.a1
  br label %head40
head40:
  %j.head40 = phi i64 [ 0, %exit22 ], [ %v52, %body41 ]
  %v43 = icmp slt i64 %j.head40, 6
  br i1 %v43, label %body41, label %exit42
body41:
  %v44 = mul nsw i64 6, %part
  %v45 = add nsw i64 %j.head40, %v44
  %v46 = getelementptr inbounds float, ptr %t0, i64 %v45
  %v47 = load float, ptr %v46, !llvm.access.group !1
  %v48 = fdiv float %v47, %v39
  %v49 = mul nsw i64 6, %i.head1
  %v50 = add nsw i64 %v49, %j.head40
  %v51 = getelementptr inbounds float, ptr %b2, i64 %v50
  store float %v48, ptr %v51, !llvm.access.group !1
  %v52 = add nsw i64 %j.head40, 1
  br label %head40, !llvm.loop !16
exit42:
  %v53 = add nsw i64 %i.head1, 1
  br label %head1, !llvm.loop !19
exit3:
  ret void
}
