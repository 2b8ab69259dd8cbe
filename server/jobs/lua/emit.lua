-- Arguments: worker, epoch, seq (before the first event), events (type, image and steps of each). Bytes: their bodies.
-- An event whose number was given already is skipped, so a repeated call changes nothing.
-- Returns {seq, 0 go on | 1 cancel | 2 the deadline has passed}; seq -1 when the job is no longer this worker's.
if not is_mine() then
  return {-1, 0}
end
local seq = args.seq
local written = number('seq')
local rows = number('rows')
for i, event in ipairs(args.events) do
  local body = ARGV[i + 1]
  seq = seq + 1
  if seq > written then
    if event.type == 'preview' then
      append_preview(event.image, body)
    else
      append(event.type, body)
    end
    local is_step = event.type == 'patches' or event.type == 'revised'
    local steps = is_step and 1 or event.steps
    if steps > 0 then
      redis.call('HINCRBY', key.job, 'done', rows * steps)
    end
  end
end
return {number('seq'), order()}
