-- ARGV: worker, epoch, seq before the first event, then type, body, image and steps of each event.
-- An event whose number was given already is skipped, so a repeated call changes nothing.
-- Returns {seq, 0 go on | 1 cancel | 2 the deadline has passed}; seq -1 when the job is no longer this worker's.
if not is_mine(ARGV[1], ARGV[2]) then
  return {-1, 0}
end
local seq = tonumber(ARGV[3])
local written = number('seq')
local rows = number('rows')
for i = 4, #ARGV, 4 do
  seq = seq + 1
  if seq > written then
    if ARGV[i] == 'preview' then
      append_preview(ARGV[i + 2], ARGV[i + 1])
    else
      append(ARGV[i], ARGV[i + 1])
    end
    local is_step = ARGV[i] == 'patches' or ARGV[i] == 'revised'
    local steps = is_step and 1 or tonumber(ARGV[i + 3])
    if steps > 0 then
      redis.call('HINCRBY', KEYS[1], 'done', rows * steps)
    end
  end
end
return {number('seq'), order()}
